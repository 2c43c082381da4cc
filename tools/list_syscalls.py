"""Write the table of system calls, src/hibana/seccomp/syscalls.py, from the kernel headers of this machine.

Needs gcc and linux-libc-dev. aarch64 takes the generic numbers, with the older calls that its own header asks for
(arch/arm64/include/uapi/asm/unistd.h); so no cross compiler is needed. `--check` only compares.
"""

import os
import re
import subprocess
import sys
from typing import Final

from hibana import seccomp

_TABLE: Final = os.path.join(os.path.dirname(os.path.abspath(seccomp.__file__)), "syscalls.py")
_AARCH64: Final = ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET")
_DEFINITION: Final = re.compile(r"#define __NR(3264)?_(\w+) (\w+)")
_NOT_CALLS: Final = {"syscalls", "arch_specific_syscall"}

_HEAD: Final = '''"""System calls by name: their numbers on x86_64 and on aarch64, where there is one.

Written by tools/list_syscalls.py from the kernel's headers; do not edit.
"""

from typing import Final

NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
'''


def main() -> int:
    """Write the table, or compare it."""
    text = render(
        numbers("asm/unistd_64.h"),
        numbers("asm-generic/unistd.h", "__BITS_PER_LONG=64", *(f"__ARCH_WANT_{name}" for name in _AARCH64)),
    )
    if "--check" not in sys.argv[1:]:
        with open(_TABLE, "w") as file:
            file.write(text)
        return 0
    with open(_TABLE) as file:
        return int(file.read() != text)


def numbers(header: str, *defined: str) -> dict[str, int]:
    """Ask the preprocessor for the numbers that a header defines."""
    command = ["gcc", "-E", "-dM", *(f"-D{name}" for name in defined), "-"]
    done = subprocess.run(command, input=f"#include <{header}>", capture_output=True, text=True, check=True)
    found = {name + (wide or ""): value for wide, name, value in _DEFINITION.findall(done.stdout)}
    # Some names of the generic header stand for the wide one of two calls: __NR_mmap is __NR3264_mmap.
    wide = {f"__NR3264_{name.removesuffix('3264')}": value for name, value in found.items() if name.endswith("3264")}
    plain = {name: wide.get(value, value) for name, value in found.items() if not name.endswith("3264")}
    return {name: int(value) for name, value in plain.items() if value.isdigit() and name not in _NOT_CALLS}


def render(x86_64: dict[str, int], aarch64: dict[str, int]) -> str:
    """Write the table's module."""
    names = sorted(x86_64.keys() | aarch64.keys())
    rows = (f'    "{name}": ({x86_64.get(name)}, {aarch64.get(name)}),\n' for name in names)
    return f"{_HEAD}{''.join(rows)}}}\n"


if __name__ == "__main__":
    sys.exit(main())
