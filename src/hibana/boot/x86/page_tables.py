"""The page tables a 64-bit kernel starts on: the first GiB, mapped to itself in pages of 2 MiB (SDM vol. 3 §4.5)."""

from struct import pack
from typing import Final

from hibana.memory import layout
from hibana.memory.guest import GuestMemory
from hibana.units import HUGE_PAGE

_PRESENT: Final = 1 << 0
_WRITABLE: Final = 1 << 1
_PAGE_SIZE: Final = 1 << 7  # the entry maps a page itself


def write_page_tables(memory: GuestMemory) -> None:
    """Write one table of each level; the kernel replaces them before it needs more."""
    memory.write(layout.PML4, pack("<Q", layout.PDPTE | _PRESENT | _WRITABLE))
    memory.write(layout.PDPTE, pack("<Q", layout.PDE | _PRESENT | _WRITABLE))
    pages = [page * HUGE_PAGE | _PRESENT | _WRITABLE | _PAGE_SIZE for page in range(512)]
    memory.write(layout.PDE, pack("<512Q", *pages))
