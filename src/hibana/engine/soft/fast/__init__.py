"""What makes the soft engine fast: accelerations, each a unit that can be left out.

The plain engine is right without any of this, and it is what runs when the self-check finds that something here is not
as it should be. A unit replaces some of the library's functions by its own machine code; nothing else of the engine
knows about it, but for the console's wait, which the runner ends. Each begins with an essay: what the library does, why
that is slow, what takes its place, which invariant makes that correct, and what a hostile guest can try.

Read in this order:

    switch.py           which units are on, in this process and for its VM
    dirty.py            stores that must ask whether they change code: the greatest gain
    inline_exit.py      the check for interrupts at the start of every block
    global_pages.py     writes of CR3 that keep the kernel's pages
    block_cache.py      finding the translation of the next block
    console.py          bytes for the console that go there together

The machine code of a unit is in NAME.S, and assembled in NAME_code.py.
"""
