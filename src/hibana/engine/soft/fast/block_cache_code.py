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
        "087519413b49107513418b411825ffff0eff4439c07505498b4120c3e8500000"
        "004d85c9740d4e898cd7e876ffff498b4120c3ff257f0f00004881c7508a0000"
        "e82c0000004c89c84885c075234881ef508a00004153ff156c0f0000415b4885"
        "c0740d48833d350f0000007403498903c34889f048c1e80b4831f02305270f00"
        "004c8b1d180f00004d85db0f849c0000004d8d1cc34d8b0b4d85c90f848c0000"
        "00493b310f8583000000493b5108757d413b49107577418b411825ffff0eff44"
        "39c0756949837950ff7562415241ba1000000089c883e00383f803741941ba20"
        "000000f7c100008000740bf7c10000040075034531d24889f048c1e8064a2344"
        "17c04a034417c84989f24981e200f0ffff4c3b501075144c0350204c2b158e0e"
        "00004d3b51487503415ac3415a4531c9c34889fa488b3d650e00004885ff740d"
        "8b0d620e0000ffc131c0f348ab4889d7ff256a0e0000"
    ),
    entries={
        "helper_lookup_tb_ptr": 0,
        "tb_htable_lookup": 153,
        "find": 209,
        "tb_flush": 401,
    },
    cells={
        "blocks": 0,
        "last_block": 8,
        "ram": 16,
        "lib_helper_lookup_tb_ptr": 24,
        "lib_tb_flush": 32,
        "lib_tb_htable_lookup": 40,
    },
    cells_size=48,
    cells_at=4096,
)
