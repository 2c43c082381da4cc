"""Relocation slots in the library of one build-id. Written by tools/find_slots.py; do not edit."""

from typing import Final

BUILD_ID: Final = "44285d3e80527122e9e361928189385906ec813e"

SLOTS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "helper_raise_interrupt": ((21163736, 1), (21665736, 6)),
    "helper_syscall": ((21163544, 1), (21712104, 6)),
    "helper_sysenter": ((21163496, 1), (21641376, 6)),
    "helper_rdrand": ((21175376, 1), (21681192, 6)),
    "tlb_reset_dirty_by_vaddr": ((21784568, 7),),
}
"""Function → (offset from the load address, relocation type)."""
