"""Two states side by side: what differs, by name."""

import struct
from typing import Final

import msgspec

from hibana.engine.state import VcpuState, VmState

CLOCKS: Final = (".msrs.0x10", ".msrs.0x6e0", "lapic 0x390", ".clock_ns", ".count_load_time")
"""What time alone changes between two looks."""
DERIVED: Final = "lapic 0xa0"
"""The processor priority follows from two other registers; KVM brings it up to date when somebody needs it."""


def _flat(state: VcpuState | VmState) -> dict[str, object]:
    """Turn a state into leaves by name, without what time alone changes."""
    leaves: dict[str, object] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(f"{name}.{hex(key) if isinstance(key, int) else key}", part)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                walk(f"{name}[{index}]", part)
        elif name == ".lapic" and isinstance(value, bytes):
            for offset in range(0, 0x400, 0x10):
                leaves[f"lapic {offset:#x}"] = struct.unpack_from("<I", value, offset)[0]
        else:
            leaves[name] = value

    walk("", msgspec.to_builtins(state, builtin_types=(bytes,), str_keys=False))
    return {name: value for name, value in leaves.items() if not name.endswith(CLOCKS) and name != DERIVED}


def differences(one: VcpuState | VmState, other: VcpuState | VmState) -> dict[str, tuple[object, object]]:
    """Name what differs between two states."""
    first, second = _flat(one), _flat(other)
    names = sorted({*first, *second})
    return {n: (first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)}
