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
    "helper_ldmxcsr": ((21166928, 1), (21663216, 6)),
    "update_mxcsr_status": ((21784424, 7),),
    "abort": ((21757568, 7),),
    "tlb_reset_dirty_by_vaddr": ((21784568, 7),),
}
"""Function → (offset from the load address, relocation type)."""
