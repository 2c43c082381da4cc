"""The machine code of fast/block_cache.S, and its labels.

Written by tools/assemble_thunks.py; do not edit.
"""

from typing import Final

from hibana.engine.soft.assembled import Assembled

THUNKS: Final = Assembled(
    code=bytes.fromhex(
        "488b97d8000000488bb7800000008b8f880000004801d681e1003107000b8fb0"
        "000000448b8744f7ffff41c1e0184889f048c1e8064831f04189c248c1e80641"
        "83e23f25c00f00004109c24e8b8cd7e876ffff4d85c97424493b31751f493b51"
        "087519413b49107513418b411825ffff0eff4439c07505498b4120c3e8600000"
        "004d85c9740d4e898cd7e876ffff498b4120c3488b87581b0000488b80000300"
        "00488b8098000000c34881c7508a0000e82c0000004c89c84885c075234881ef"
        "508a00004153ff15540f0000415b4885c0740d48833d250f0000007403498903"
        "c34889f048c1e80b4831f02305170f00004c8b1d080f00004d85db0f849c0000"
        "004d8d1cc34d8b0b4d85c90f848c000000493b310f8583000000493b5108757d"
        "413b49107577418b411825ffff0eff4439c0756949837950ff7562415241ba10"
        "00000089c883e00383f803741941ba20000000f7c100008000740bf7c1000004"
        "0075034531d24889f048c1e8064a234417c04a034417c84989f24981e200f0ff"
        "ff4c3b501075144c0350204c2b157e0e00004d3b51487503415ac3415a4531c9"
        "c34889fa488b3d550e00004885ff740d8b0d520e0000ffc131c0f348ab4889d7"
        "ff25520e0000"
    ),
    entries={
        "helper_lookup_tb_ptr": 0,
        "tb_htable_lookup": 169,
        "find": 225,
        "tb_flush": 417,
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
