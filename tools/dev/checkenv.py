"""`checkenv`: what this machine can do for Hibana, one line a fact; nothing is changed."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tools.dev.system import PACKAGES


class Finding(NamedTuple):
    """A fact, and whether it is as it should be: `ok`, `warn` (slower or less), `fail` (cannot work)."""

    level: str
    text: str


def main(arguments: Sequence[str]) -> int:
    """Print all findings; fail if something cannot work."""
    findings = [check() for check in _CHECKS]
    for finding in findings:
        print(f"{finding.level:>4}  {finding.text}")
    return int(any(finding.level == "fail" for finding in findings))


def _machine() -> Finding:
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return Finding("ok", f"Linux {platform.release()} on x86_64, {os.cpu_count()} CPUs")
    return Finding("fail", f"{platform.system()} on {platform.machine()}: Hibana runs on Linux on x86_64")


def _python() -> Finding:
    return Finding("ok", f"Python {platform.python_version()} at {sys.executable}")


def _kvm() -> Finding:
    device = Path("/dev/kvm")
    if not device.exists():
        return Finding("ok", "no /dev/kvm: guests run on the soft engine")
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding("warn", "/dev/kvm is not ours to open: sudo setfacl -m u:$USER:rw /dev/kvm")
    return Finding("ok", "/dev/kvm can be opened: it is used where it runs guest code on the CPU")


def _memory() -> Finding:
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free_mib = int(rows["MemAvailable"].split()[0]) >> 10
    level = "ok" if free_mib >= 2048 else "warn"
    return Finding(level, f"{free_mib} MiB of memory available; all guest tests together want 2048")


def _disk() -> Finding:
    free_mib = shutil.disk_usage(Path(__file__).parent).free >> 20
    return Finding("ok" if free_mib >= 1024 else "warn", f"{free_mib} MiB of disk free; build/ takes up to 1024")


def _programs() -> Finding:
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return Finding("ok", "all Debian packages that tests and benchmarks use are installed")
    how = "installed when needed" if os.geteuid() == 0 else f"sudo apt-get install {' '.join(missing)}"
    return Finding("ok" if os.geteuid() == 0 else "warn", f"not installed yet: {', '.join(missing)} ({how})")


_CHECKS: Final[Sequence[Callable[[], Finding]]] = (_machine, _python, _kvm, _memory, _disk, _programs)
