"""Global pages: a write of CR3 leaves the kernel's part of the TLB alone.

**What the library does.** A write of CR3 empties the software TLB and the cache of the next blocks, all of it. The
architecture lets pages whose last page-table entry has the G bit stay (SDM vol. 3, "Caching Translation Information"),
and every kernel maps itself with it.

**Why that is slow.** Each task switch and each system call that visits another address space is followed by dozens of
page-table walks, for pages that are as they were. A kernel that finds itself on one CPU rewrites its 8 700 LOCK
prefixes through a temporary address space: 17 500 writes of CR3 in one boot.

**What takes its place.** What comes into the TLB is noted, by kind. Pages of user mode are not told apart: at the next
write of CR3 their whole table goes, and the cache of blocks with it. Pages of the kernel in the lower half of the
address space, where it maps things for itself only in passing, are listed, up to 64 of them, and dropped one by one.
Pages in the upper half stay if they are global: the page tables are walked to see. A single one that is not, a walk
that leads out of RAM, a list that is full: then the next write of CR3 empties everything, as the library would.

**What makes it correct.** *Whatever is in the TLB is global, or listed, or a user page with `user` set, or
`everything` is set.* Entries come into the TLB only through `tlb_set_page_with_attrs`; the marks are taken back only
where the TLB is emptied of what they stand for. The other users of CR3's value keep their meaning: paging off or
CR4.PGE off make every write of CR3 empty everything; setting either empties the TLB, as the library does, and so does
another vCPU's turn, because each has its own TLB. PCID, which would give CR3 a second meaning, is not announced and
not accepted; if it were on, everything would go.

A kernel page that is executable in the lower half counts as a user page too, because blocks are found by virtual
address. That is also why 32-bit kernels, all of whose pages are in the lower half, gain nothing and lose nothing.

**What a hostile guest can try.** The walk reads the guest's own tables: each address is cut to 52 bits and compared
with the sizes of RAM below and above the gap before it is used, and a table is one page, aligned, so it is in RAM as a
whole. Tables that point at themselves end after four levels. Entries that change between the library's walk and this
one, or later, mislead only the guest that changed them: the worst is a page that it keeps although it has unmapped it
without INVLPG, which a CPU may do too.
"""

from typing import Final

from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.table import Table

_LIST_LENGTH: Final = 64


def attach(code: MachineCode, plain: MachineCode) -> Table:
    """Begin with an empty list, and tell where RAM is."""
    pages = Table(8 * _LIST_LENGTH)
    ram, low, high = (plain.get(cell) for cell in ("ram", "low_ram_size", "high_ram_size"))
    code.set("low_ram", ram)
    code.set("low_ram_size", low)
    code.set("high_ram", ram + low)
    code.set("high_ram_size", high)
    code.set("list", pages.addr)
    code.set("list_length", _LIST_LENGTH)
    return pages


def detach(code: MachineCode) -> None:
    """Let every write of CR3 empty the TLB again."""
    for cell in ("listed", "low_ram_size", "high_ram_size", "list_length"):
        code.set(cell, 0)
