"""The machine code of fast/dirty.S, and its labels.

Written by tools/assemble_thunks.py; do not edit.
"""

from typing import Final

from hibana.engine.soft.assembled import Assembled

THUNKS: Final = Assembled(
    code=bytes.fromhex(
        "483b3501100000732a4889f048c1e80c480305f90f0000c60001488bbfb80100"
        "00480335d80f0000ba00100000ff250d100000c3c3483b15cc0f000073144889"
        "d048c1e80c480305c40f00008038007501c3ff25e00f000089c883e00fc1e004"
        "4989f249c1ea064c235407c04c035407c84989f14981e100f0ffff4d8d990004"
        "00004d3b5a087536f6c50775314d8b5a204b8d0419482b05640f0000483b0565"
        "0f0000731948c1e80c480305600f000080380075094d894a084288141ec3ff25"
        "6c0f000089c883e00fc1e0044989f249c1ea064c235407c04c035407c84989f1"
        "4981e100f0ffff4d8d99000400004d3b5a087545f6c507754089f025ff0f0000"
        "3dfe0f000077324d8b5a204b8d0419482b05ea0e0000483b05eb0e0000731a48"
        "c1e80c480305e60e0000803800750a4d894a08664289141ec3ff25e90e000089"
        "c883e00fc1e0044989f249c1ea064c235407c04c035407c84989f14981e100f0"
        "ffff4d8d99000400004d3b5a087544f6c507753f89f025ff0f00003dfc0f0000"
        "77314d8b5a204b8d0419482b056f0e0000483b05700e0000731948c1e80c4803"
        "056b0e000080380075094d894a084289141ec3ff255f0e000089c883e00fc1e0"
        "044989f249c1ea064c235407c04c035407c84989f14981e100f0ffff4d8d9900"
        "0400004d3b5a087544f6c507753f89f025ff0f00003df80f000077314d8b5a20"
        "4b8d0419482b05f50d0000483b05f60d0000731948c1e80c480305f10d000080"
        "380075094d894a084a89141ec3ff25ed0d0000"
    ),
    entries={
        "tlb_protect_code": 0,
        "tlb_reset_dirty_by_vaddr": 52,
        "tb_invalidate_phys_page_fast": 53,
        "helper_ret_stb_mmu": 88,
        "helper_le_stw_mmu": 196,
        "helper_le_stl_mmu": 319,
        "helper_le_stq_mmu": 441,
    },
    cells={
        "ram": 0,
        "ram_size": 8,
        "holds_code": 16,
        "lib_helper_le_stl_mmu": 24,
        "lib_helper_le_stq_mmu": 32,
        "lib_helper_le_stw_mmu": 40,
        "lib_helper_ret_stb_mmu": 48,
        "lib_tb_invalidate_phys_page_fast": 56,
        "lib_tlb_reset_dirty": 64,
    },
    cells_size=72,
    cells_at=4096,
)
