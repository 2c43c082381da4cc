"""The block cache: the next block's translation is found without the hash table.

**What the library does.** A block that ends in an indirect jump, a call, a return or a jump to another page asks for
the translation at the new address. There is a cache of 4 096 blocks by virtual address; behind it, a hash table by
physical address, for which the address is translated and some sixty instructions of hashing are done.

**Why that is slow.** The cache is emptied with the TLB, at each task switch, although the translations are still there:
every twelfth lookup of a booting kernel goes to the hash table.

**What takes its place.** Behind the library's cache a second one, eight times as large, which is not emptied. Each
address has two places in it: a fork and exec runs through so many blocks that they would push each other out. The look
into the first cache, 21 million times in a boot, is done in fewer instructions. Where neither has the block, the
library would look into its hash table, leave the translated code and look into it again. Nearly always the block is
new and not there: once is enough.

**What makes it correct.** The cache may say anything, because a hit is checked: the block must be for this address,
these flags and this way of translating, not be invalidated, and lie within one page; and the TLB must map the address,
for executing, in the current mode, to *the very page of RAM that the block was translated from*. That is what the
library compares after its hash. What is not in the TLB, or spans two pages, is the library's.

A pointer in the cache stays a pointer to a block for as long as the translation buffer is not reused. It is reused
when it is full, by `tb_flush`, and when the machine is closed: the cache is emptied at the one, and goes with the
other. Blocks that are discarded right after translation, whose memory is reused too, have never been looked up.

**What a hostile guest can try.** It chooses addresses, and so which places of the cache collide; the index is cut to
the size of the table. It cannot write there.
"""

from typing import Final

from hibana.engine.soft.machine_code import MachineCode
from hibana.engine.soft.table import Table

_PAIRS: Final = 1 << 14


def attach(code: MachineCode, plain: MachineCode) -> Table:
    """Begin with an empty cache."""
    blocks = Table(16 * _PAIRS)
    code.set("ram", plain.get("ram"))
    code.set("last_pair", _PAIRS - 1)
    code.set("blocks", blocks.addr)
    return blocks


def detach(code: MachineCode) -> None:
    """Leave finding to the library again."""
    code.set("blocks", 0)
