"""The machine code of fast/console.S, and its labels.

Written by tools/assemble_thunks.py; do not edit.
"""

from typing import Final

from hibana.engine.soft.assembled import Assembled

THUNKS: Final = Assembled(
    code=bytes.fromhex(
        "3b35fa0f00007525488b0519100000483b050a1000007315488b0df90f000088"
        "140148ffc0488905fc0f0000c3ff25051000003b35cf0f0000751248833ddd0f"
        "00000074080fb605c40f0000c3ff25dd0f0000"
    ),
    entries={
        "cpu_outb": 0,
        "cpu_inb": 51,
    },
    cells={
        "data_port": 0,
        "status_port": 8,
        "status": 16,
        "buffer": 24,
        "room": 32,
        "waiting": 40,
        "lib_cpu_inb": 48,
        "lib_cpu_outb": 56,
    },
    cells_size=64,
    cells_at=4096,
)
