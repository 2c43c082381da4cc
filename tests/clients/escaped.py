"""A VMM whose guest has broken out: a real one, jailed, in which any Python runs as soon as the guest says so.

The guest writes to its boot timer, as it might to a device with a hole in it; the device, on the thread of the vCPU,
runs the attack instead of noting the time. The attack has everything that the VMM has: its memory, its descriptors, its
rights. It returns what it got hold of, or fails.
"""

import sys
from collections.abc import Sequence
from textwrap import indent
from typing import Any, Final

from tests.clients.conftest import MakeJail
from tests.clients.jail import JAILER, Jail
from tests.clients.process import ROOT
from tests.clients.tiny_guests import HALT, REPORT_BOOT, pvh_kernel

# What attacks use, beside what the VMM has imported anyway.
_TOOLS: Final = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    '''Call a function of the C library, and fail like Python's own if it fails.'''
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return name
"""

_PROGRAM: Final = """
import sys
sys.path[:0] = {paths!r}
sys.argv[0] = {jailer!r}
{tools}
def attack():
{attack}

def arrived(*_):
    try:
        outcome = f"ESCAPED: {{attack()!r}}"
    except OSError as error:
        outcome = f"refused: {{errno.errorcode[error.errno]}}"
    except BaseException as error:
        outcome = f"failed: {{type(error).__name__}}: {{error}}"
    os.write(1, f"\\n{{outcome}}\\n".encode())
    os._exit(0)

from hibana.devices.boot_timer import BootTimer
BootTimer.write = arrived
from hibana.cli.jailer import entry
entry()
"""


def escape(jail: MakeJail, attack: str, *options: str, vmm: Sequence[str] = (), **changed: Any) -> Jail:
    """Jail a VMM, and have it run the body of a function."""
    program = _PROGRAM.format(
        paths=[str(ROOT / "src"), str(ROOT / "build/runtime")],
        jailer=str(JAILER),
        tools=_TOOLS,
        attack=indent(attack, "    "),
    )
    jail.room.furnish(b"")
    jail.room.put("kernel", pvh_kernel(REPORT_BOOT + HALT))
    words = ["--no-api", "--config-file", "/vm.json", "--boot-timer", "--engine", "soft", *vmm]
    return jail(*options, vmm=words, program=[sys.executable, "-ISc", program], **changed)


def outcome(vmm: Jail) -> str:
    """Wait for the end; say how the attack went: its own last line, or how the kernel ended the process."""
    code = vmm.wait()
    lines = [line for line in vmm.out.splitlines() if line.startswith(("ESCAPED", "refused", "failed"))]
    return lines[-1] if lines else f"killed: {code}"
