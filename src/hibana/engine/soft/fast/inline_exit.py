"""The exit check: two instructions at the start of a block instead of a call.

**What the library does.** Translated code runs from block to block without coming back, so each block begins with a
look at the kick word, by which interrupts and other threads reach the guest. The library emits this look as a call of
`helper_check_exit_request`.

**Why that is slow.** A boot executes 150 million blocks of a handful of instructions each, and a call costs more than
the instructions: registers that hold guest state go to memory before it.

**What takes its place.** What QEMU emits: load the word, compare, branch to the end of the block, where the library
already emits the right exit, as dead code that nothing leads to. Translation emits intermediate operations through
exported functions, so it is enough to stand in for the one that emits calls and for the one that emits exits. The
first sees the call go by and emits load and branch; the second puts the label where the exit is.

**What makes it correct.** The look still comes before the first instruction of the block and only there, so nothing
is executed twice (`no_exit_request` stays on; what the library would check after loads and stores is another matter).
The exit is the one that means "this block has not begun", for which the library sets EIP from the block; the helper
left by longjmp, and found EIP through the return address. A label belongs to one translation, which a page fault can
end in the middle: the cell is cleared when the next one starts, and only a block's first call of the helper is
replaced, so a label is put down exactly once or, with its block, never.

**What a hostile guest can try.** Nothing here sees a value of the guest's. It can force translations to be given up,
by code that runs into an unmapped page or is too long for the buffer; that is what the clearing is for.
"""

from hibana.engine.soft.machine_code import MachineCode


def attach(code: MachineCode, plain: MachineCode) -> None:
    """Begin with no block in translation."""
    code.set("label", 0)


def detach(code: MachineCode) -> None:
    """Leave the last block behind."""
    code.set("label", 0)
