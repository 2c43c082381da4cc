"""Compile our own seccomp policies, src/hibana/seccomp/policies/, into src/hibana/seccomp/builtin.py.

A module, not a file beside the program: the VMM may find itself in an empty root directory. `--check` only compares.
"""

import os
import sys
from typing import Final

from hibana import seccomp
from hibana.seccomp import container
from hibana.seccomp.compiler import ARCHITECTURES, compile_policy
from hibana.seccomp.policy import parse

_FOLDER: Final = os.path.dirname(os.path.abspath(seccomp.__file__))
_POLICIES: Final = os.path.join(_FOLDER, "policies")
_MODULE: Final = os.path.join(_FOLDER, "builtin.py")
_BYTES_PER_LINE: Final = 32

_HEAD: Final = '''"""Our own filters, compiled: by architecture and engine, in the format of container.py.

Written by tools/compile_policies.py from policies/; do not edit.
"""

from typing import Final

FILTERS: Final = {
'''


def main() -> int:
    """Write the module, or compare it."""
    text = f"{_HEAD}{''.join(_filters_of(machine) for machine in sorted(os.listdir(_POLICIES)))}}}\n"
    if "--check" not in sys.argv[1:]:
        with open(_MODULE, "w") as file:
            file.write(text)
        return 0
    with open(_MODULE) as file:
        return int(file.read() != text)


def compiled(machine: str, name: str) -> bytes:
    """Compile the policy of an engine on an architecture."""
    with open(os.path.join(_POLICIES, machine, f"{name}.json"), "rb") as file:
        policy = parse(file.read())
    return container.write(compile_policy(policy, ARCHITECTURES[machine]))


def _filters_of(machine: str) -> str:
    names = sorted(name.removesuffix(".json") for name in os.listdir(os.path.join(_POLICIES, machine)))
    entries = "".join(_entry(name, compiled(machine, name)) for name in names)
    return f'    "{machine}": {{\n{entries}    }},\n'


def _entry(name: str, content: bytes) -> str:
    lines = [content[at : at + _BYTES_PER_LINE].hex() for at in range(0, len(content), _BYTES_PER_LINE)]
    quoted = "\n".join(f'            "{line}"' for line in lines)
    return f'        "{name}": bytes.fromhex(\n{quoted}\n        ),\n'


if __name__ == "__main__":
    sys.exit(main())
