"""The machine code of fast/block_cache.S, and its labels.

Written by tools/assemble_thunks.py; do not edit.
"""

from typing import Final

from hibana.engine.soft.assembled import Assembled

THUNKS: Final = Assembled(
    code=bytes.fromhex(
        "488b97d8000000488bb7800000008b8f880000004801d681e1003107000b8fb0"
        "0000004889f048c1e8064831f04189c248c1e8064183e23f25c00f00004109c2"
        "4e8b8cd7e876ffff4d85c97426493b317521493b5108751b413b49107515418b"
        "411825ffff0eff3d000000ff7505498b4120c341b8000000ffe8600000004d85"
        "c9740d4e898cd7e876ffff498b4120c3488b87581b0000488b8000030000488b"
        "8098000000c34881c7508a0000e82c0000004c89c84885c075234881ef508a00"
        "004153ff15570f0000415b4885c0740d48833d280f0000007403498903c34889"
        "f048c1e80b4831f023051a0f00004c8b1d0b0f00004d85db0f849c0000004d8d"
        "1cc34d8b0b4d85c90f848c000000493b310f8583000000493b5108757d413b49"
        "107577418b411825ffff0eff4439c0756949837950ff7562415241ba10000000"
        "89c883e00383f803741941ba20000000f7c100008000740bf7c1000004007503"
        "4531d24889f048c1e8064a234417c04a034417c84989f24981e200f0ffff4c3b"
        "501075144c0350204c2b15810e00004d3b51487503415ac3415a4531c9c34889"
        "fa488b3d580e00004885ff740d8b0d550e0000ffc131c0f348ab4889d7ff2555"
        "0e0000"
    ),
    entries={
        "helper_lookup_tb_ptr": 0,
        "tb_htable_lookup": 166,
        "find": 222,
        "tb_flush": 414,
    },
    cells={
        "blocks": 0,
        "last_block": 8,
        "ram": 16,
        "lib_tb_flush": 24,
        "lib_tb_htable_lookup": 32,
    },
    cells_size=40,
    cells_at=4096,
)
