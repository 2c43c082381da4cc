"""The machine code of fast/inline_exit.S, and its labels.

Written by tools/assemble_thunks.py; do not edit.
"""

from typing import Final

from hibana.engine.soft.assembled import Assembled

THUNKS: Final = Assembled(
    code=bytes.fromhex(
        "48c705f50f000000000000ff2507100000483b35f80f00000f85860000004883"
        "3dda0f000000757c5341544883ec084889fbff15d00f0000488905c10f000048"
        "89dfbe0000000031d2ff15f90f00004989c44889dfbe0d0000004c89e2488b8b"
        "f09800004801d949c7c0f0ffffffff15c40f00004889dfbe020000004c89e248"
        "29da31c94c8b05750f0000ff158f0f00004889df4c89e64883c408415c5bff25"
        "9c0f0000ff25a60f000083fa037539488b054a0f00004885c0742d57564883ec"
        "0848c705340f000000000000800801be010000004889c2ff15530f00004883c4"
        "085e5fba03000000ff253a0f0000"
    ),
    entries={
        "tcg_func_start": 0,
        "tcg_gen_callN": 17,
        "tcg_gen_exit_tb": 170,
    },
    cells={
        "label": 0,
        "lib_gen_new_label": 8,
        "lib_helper_check_exit_request": 16,
        "lib_tcg_func_start": 24,
        "lib_tcg_gen_brcondi_i32": 32,
        "lib_tcg_gen_exit_tb": 40,
        "lib_tcg_gen_op1": 48,
        "lib_tcg_gen_op3": 56,
        "lib_tcg_temp_free_internal": 64,
        "lib_tcg_temp_new_internal": 72,
        "plain_tcg_gen_callN": 80,
    },
    cells_size=88,
    cells_at=4096,
)
