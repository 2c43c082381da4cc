"""Dirty tracking: stores learn from a table whether they change code.

**What the library does.** A store into a page that holds translated code must drop that translation. The software TLB
has a flag for it: while an entry is NOTDIRTY, stores through it leave the translated code and ask. The library sets
the flag in every new entry, and clears it after the first store, unless the entry is also executable: then it never
does. After each translation it searches the whole TLB for entries of the same virtual page and sets the flag again.

**Why that is slow.** Linux maps its whole image executable until it has booted, with its data and the stack of its
first CPU. So nearly every store of a booting kernel asks, 23 million times, and of 55 000 translations each searches
the TLB. It is also not enough: code that is written through another virtual address than the one it runs at is not
searched for, and a store through a mapping that is not executable clears the flag although code remains in the page.

**What takes its place.** QEMU's own scheme, which the library's authors took out: a table with one byte for each page
of RAM that says whether the page holds code. The library still tells when a page gets its first translation and when
it loses its last, to functions that do nothing. They fill the table now. A store that asks and finds that the page
holds no code clears the flag, whatever kind of entry it is, and is done: some thirty instructions, once for each TLB
entry.

**What makes it correct.** One invariant: *an entry without the flag maps a page that holds no code.* Entries begin
with the flag; only the two thunks that have just looked into the table clear it; and when a page gets its first
translation, the flag is set in all entries of that physical page, under whatever virtual address. The table is in the
order of the host's reservation, as the library's own page descriptors are, so there is no gap below 4 GiB in it.
A 1 may be stale (when the library drops all translations at once it does not tell); that is slow and not wrong, and
the next store heals it. A 0 is never stale.

What the host writes does not go through the TLB: the device says so (`GuestMemory.on_write`), the library drops the
translations, and with the last one the table is right again.

**What a hostile guest can try.** Every index into the table comes out of a subtraction and is compared with the size
of RAM before it is used. The store itself goes where the TLB entry says, as the library's own inline stores do. Code
changed through aliases, across pages, by itself: that is what the invariant is for.
"""

from hibana.engine.soft.machine_code import MachineCode


def attach(code: MachineCode, plain: MachineCode) -> None:
    """Share the plain engine's table."""
    for cell in ("ram", "holds_code", "ram_size"):
        code.set(cell, plain.get(cell))


def detach(code: MachineCode) -> None:
    """Leave every store to the library again."""
    code.set("ram_size", 0)
