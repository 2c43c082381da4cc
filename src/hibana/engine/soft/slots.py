"""Relocation slots in the library of one build-id. Written by tools/find_slots.py; do not edit."""

from typing import Final

BUILD_ID: Final = "44285d3e80527122e9e361928189385906ec813e"

SLOTS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "helper_raise_interrupt": ((21163736, 1), (21665736, 6)),
    "helper_syscall": ((21163544, 1), (21712104, 6)),
    "helper_sysenter": ((21163496, 1), (21641376, 6)),
    "helper_rdrand": ((21175376, 1), (21681192, 6)),
    "raise_exception_err": ((21744416, 7),),
    "helper_inb": ((21164360, 1), (21686584, 6)),
    "helper_inw": ((21164408, 1), (21664616, 6)),
    "helper_inl": ((21164456, 1), (21706176, 6)),
    "helper_outb": ((21164336, 1), (21657648, 6)),
    "helper_outw": ((21164384, 1), (21663840, 6)),
    "helper_outl": ((21164432, 1), (21658792, 6)),
    "helper_read_crN": ((21163328, 1), (21679944, 6)),
    "helper_write_crN": ((21163352, 1), (21697304, 6), (21779128, 7)),
    "helper_rdmsr": ((21164216, 1), (21704656, 6), (21783240, 7)),
    "helper_wrmsr": ((21164240, 1), (21664640, 6), (21760896, 7)),
    "tcg_gen_callN": ((21759896, 7),),
    "gen_new_label": ((21758712, 7),),
    "cpu_cc_compute_all": ((21793720, 7),),
    "helper_ldmxcsr": ((21166928, 1), (21663216, 6)),
    "update_mxcsr_status": ((21784424, 7),),
    "abort": ((21757568, 7),),
    "tlb_reset_dirty_by_vaddr": ((21784568, 7),),
    "tlb_protect_code": ((21766872, 7),),
    "tlb_unprotect_code": ((21768848, 7),),
    "tlb_set_dirty": ((21757160, 7),),
    "tb_invalidate_phys_page_fast": ((21774368, 7),),
    "helper_ret_stb_mmu": ((21182144, 1), (21756640, 7)),
    "helper_le_stw_mmu": ((21182152, 1),),
    "helper_le_stl_mmu": ((21182160, 1),),
    "helper_le_stq_mmu": ((21182168, 1),),
    "tcg_func_start": ((21759992, 7),),
    "tcg_gen_exit_tb": ((21789672, 7),),
    "tlb_set_page_with_attrs": ((21752896, 7),),
    "cpu_x86_update_cr3": ((21795224, 7),),
    "tlb_flush": ((21755840, 7),),
    "helper_lookup_tb_ptr": ((21175904, 1), (21653096, 6)),
    "tb_htable_lookup": ((21788760, 7),),
    "tb_flush": ((21762248, 7),),
    "cpu_outb": ((21770032, 7),),
    "cpu_inb": ((21746528, 7),),
}
"""Function → (offset from the load address, relocation type)."""
