"""The fingerprint of a host: what decides which CPU its guests see, and how it differs from another's.

The same CPU model under another kernel, microcode or BIOS may show guests something else. Whoever maintains templates
takes the fingerprint of each kind of host, and looks again when one has changed (operations.md §4.3).
"""

import os
import re
from typing import Any, Final

from hibana import FIRECRACKER_VERSION
from hibana.config.cpu import CustomCpuTemplate
from hibana.cpu_templates.compare import strip
from hibana.cpu_templates.render import json_form, pretty
from hibana.errors import FingerprintSourceError, os_text
from hibana.serde.shapes import Loose

_CPUINFO: Final = "/proc/cpuinfo"
_MICROCODE: Final = re.compile(r"^microcode\s*: *(.*)$", re.MULTILINE)
_DMI: Final = "/sys/devices/virtual/dmi/id"


class Fingerprint(Loose):
    firecracker_version: str
    kernel_version: str
    microcode_version: str
    bios_version: str
    bios_revision: str
    guest_cpu_config: CustomCpuTemplate


FIELDS: Final = Fingerprint.__struct_fields__


def take(guest_cpu_config: CustomCpuTemplate) -> Fingerprint:
    """Take the fingerprint of this host, on which a guest's CPU looks like that. Raises FingerprintSourceError."""
    microcode = _MICROCODE.search(_read(_CPUINFO))
    return Fingerprint(
        firecracker_version=FIRECRACKER_VERSION,
        kernel_version=os.uname().release,
        microcode_version=microcode[1] if microcode else "",
        bios_version=_firmware("bios_version"),
        bios_revision=_firmware("bios_release"),
        guest_cpu_config=guest_cpu_config,
    )


def file_form(fingerprint: Fingerprint) -> dict[str, Any]:
    """Give what a fingerprint looks like in JSON."""
    return {name: _file_form(getattr(fingerprint, name)) for name in FIELDS}


def differences(prev: Fingerprint, curr: Fingerprint, fields: list[str]) -> list[str]:
    """Describe the fields that differ, each as a JSON object; of two CPUs only that in which they differ."""
    found = []
    for name in fields:
        before, after = getattr(prev, name), getattr(curr, name)
        if before != after:
            if isinstance(before, CustomCpuTemplate):
                before, after = strip([before, after])
            found.append(pretty({"name": name, "prev": _file_form(before), "curr": _file_form(after)}).decode())
    return found


def _file_form(value: str | CustomCpuTemplate) -> object:
    return value if isinstance(value, str) else json_form(value)


def _firmware(name: str) -> str:
    """Read what the firmware says about itself; a virtual machine's often says nothing at all."""
    path = os.path.join(_DMI, name)
    return _read(path).strip() if os.path.exists(path) else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise FingerprintSourceError(path=path, cause=os_text(error)) from error
