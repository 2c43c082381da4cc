"""What all generated code is made with: dice, the code being written, and the conventions every block keeps.

    RSP         the main stack, balanced at the ends of a block
    R12         a place in the data frames, for the block's own accesses
    R13         a loop counter
    R14, R15    RSP and the address at which to go on after an exception
    the rest    anything

A block needs nothing that another block did: whatever it relies on, it sets. So any of them can be left out, which is
how a failing program is made small. Everything a program does is architecturally defined, with one exception that the
generator keeps book of: the flags that an instruction leaves undefined (`undefined`) are not looked at until another
instruction has defined them. What another CPU does not do, or does wrong, a block asks for by `may`.
"""

import random
from collections.abc import Callable, Collection, Sequence
from struct import pack
from typing import Final, NamedTuple, TypeVar

from hibana.units import PAGE
from tests.fuzz import world
from tests.fuzz.cpus import CODE_BY_STRINGS
from tests.fuzz.encoder import (
    NE,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    Absolute,
    Code,
)
from tests.fuzz.world import CODE, DATA, K, L, Layout, U, at

FREE: Final = (RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R10, R11)

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ARITHMETIC: Final = 0x8D5

_NEEDS: Final = (OF, CF, ZF, CF | ZF, SF, PF, SF | OF, ZF | SF | OF)
"""Condition / 2 → flags it looks at."""
_EDGES: Final = (0, 1, -1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 1 << 63, (1 << 63) - 1)
_REACH: Final = 0x1F00
"""How far behind R12 the accesses of soup go: across a page boundary."""
_STACK_TOP: Final = PAGE - 0x40
"""In a page that may hold code: functions are below the first KiB of stack, and some at the very end of the page."""
_CMP: Final = 7

Choice = TypeVar("Choice")


class Write(NamedTuple):
    """Bytes that the host puts into a frame; `frame` -1: into the code of the block itself."""

    frame: int
    offset: int
    content: bytes


class Action(NamedTuple):
    """What the host does at an OUT to PORT_ACT."""

    writes: tuple[Write, ...]
    through_window: bool
    """Write through a window and report the whole range, as a disk does, instead of writing piece by piece."""


class Block(NamedTuple):
    """A piece of a program that can be left out."""

    name: str
    code: bytes
    absolutes: tuple[Absolute, ...]
    actions: range
    """The numbers of what the host does for it."""


class Entry(NamedTuple):
    """A kind of block: how often it is chosen, and what writes it."""

    weight: int
    body: Callable[["Generator"], None]


class Generator:
    """Writes one program, block after block."""

    def __init__(self, seed: int, ring: int, left_out: Collection[str]) -> None:
        self.dice = dice = random.Random(seed)
        self._random = dice.random
        self.layout: Layout = self.pick(world.LAYOUTS)
        self._left_out = left_out
        self.ring = ring
        """Where the program begins: in ring 0, or in ring 3, which it then never leaves."""
        self.regions = (U,) if ring else (K, L, U)
        """Those through which it may use the code and data frames."""
        self.home = U if ring else self.pick((K, K, L))
        """The region through which it executes."""
        own_stack = world.USER_STACK if ring else world.STACK
        stack_frame = self.pick((own_stack, own_stack, CODE + self.below(world.CODE_FRAMES)))
        self.stack_top = at(U if ring else self.pick((K, L)), stack_frame, _STACK_TOP)
        self.split = 1 + self.below(4)
        """How many bytes of the immediate of a function that crosses pages are in the first page."""
        self.ist = self.chance(0.7)
        """Exceptions have a stack of their own."""
        self.code = Code()
        self._end = 0
        self.undefined = 0
        """Flags that must not be looked at now."""
        self.user = bool(ring)
        """The code being written runs in ring 3."""
        self.actions: dict[int, Action] = {}

    # --- dice ---------------------------------------------------------------------------------------------------------

    def below(self, limit: int) -> int:
        """Choose from 0 … limit - 1."""
        return int(self._random() * limit)

    def chance(self, probability: float) -> bool:
        """Toss an uneven coin."""
        return self._random() < probability

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """Choose one."""
        return choices[int(self._random() * len(choices))]

    def free(self) -> int:
        """Choose a register that may be changed."""
        return FREE[int(self._random() * 11)]

    def frees(self, count: int) -> list[int]:
        """Choose different registers that may be changed."""
        return self.dice.sample(FREE, count)

    def number(self) -> int:
        """Choose a 64-bit number, often one at an edge."""
        kind = self._random()
        if kind < 0.3:
            return self.pick(_EDGES)
        if kind < 0.6:
            return self.below(256) - 128
        return self.dice.getrandbits(self.pick((16, 32, 64, 64)))

    def reach(self, size: int, aligned: bool = False) -> int:
        """Choose a displacement from R12 for an access, sometimes across the page boundary."""
        if aligned:
            return self.below(_REACH // size) * size
        if self.chance(0.15):
            return PAGE - 1 - self.below(size)
        return self.below(_REACH)

    def may(self, what: str) -> bool:
        """Tell whether programs of this kind do something."""
        return what not in self._left_out

    # --- conventions --------------------------------------------------------------------------------------------------

    def block(self, name: str, body: Callable[["Generator"], None]) -> Block:
        """Write one block."""
        self.code = code = Code()
        self.undefined = 0
        self._end = end = code.label()
        code.lea_label(R15, end)
        code.mov(R14, RSP)
        actions = len(self.actions)
        body(self)
        code.bind(end)
        self.define_flags()
        return Block(name, *code.finish(), range(actions, len(self.actions)))

    def define_flags(self) -> None:
        """Give all arithmetic flags a defined value."""
        self.code.alu(_CMP, self.free(), self.free(), self.pick((4, 8)))
        self.undefined = 0

    def flags(self, defined: int, undefined: int = 0) -> None:
        """Note what the last instruction did to the flags."""
        self.undefined = self.undefined & ~defined | undefined

    def need(self, flags: int) -> None:
        """See to it that flags are defined before the next instruction looks at them."""
        if self.undefined & flags:
            self.define_flags()

    def condition(self) -> int:
        """Choose a condition that can be tested now."""
        condition = self.below(16)
        self.need(_NEEDS[condition >> 1])
        return condition

    def may_fault(self, body: Callable[[], None]) -> None:
        """Write code that may end in an exception; then, or else, what follows it is executed."""
        self.need(ARITHMETIC)
        over = self.code.label()
        self.code.lea_label(R15, over)
        body()
        self.code.bind(over)
        self.define_flags()

    def aim(self, address: int) -> None:
        """Let R12 point to an address."""
        self.code.load(R12, address)

    def aim_at_data(self) -> None:
        """Let R12 point to data frames."""
        region = U if self.user else self.pick((K, K, L, U))
        self.aim(at(region, DATA + self.below(world.DATA_FRAMES - 2)))

    def loop(self, count: int, body: Callable[[], None]) -> None:
        """Repeat code; an exception inside goes on with the next round."""
        code = self.code
        code.load(R13, count)
        top, bottom = code.here(), code.label()
        code.lea_label(R15, bottom)
        body()
        code.bind(bottom)
        self.define_flags()  # the next round, like the first, finds all of them defined
        code.dr(b"\xff", 1, R13)  # dec
        code.jcc(NE, top)
        code.lea_label(R15, self._end)

    def act(self, writes: Sequence[Write], through_window: bool = False) -> int:
        """Let the host write memory; RAX is used. Gives the number of the action."""
        number = len(self.actions)
        self.actions[number] = Action(tuple(writes), through_window)
        self.code.load(RAX, number)
        if self.ring:
            self.code.ra(b"\x89", RAX, world.USER_DEVICE + world.REGISTER_ACT)
        else:
            self.code.out_eax(world.PORT_ACT)
        return number

    def say(self, reg: int) -> None:
        """Show a register to the host; RAX is used."""
        self.code.mov(RAX, reg)
        self.code.out_eax(world.PORT_SAY)

    def serialize(self) -> None:
        """Execute a serializing instruction, as SDM vol. 3 wants between writing code at one address and running it at
        another; RAX and more are used."""
        if self.user or self.chance(0.2):
            self.code.raw(b"\x53\x31\xc0\x0f\xa2\x5b")  # push rbx; xor eax, eax; cpuid; pop rbx
            self.flags(ARITHMETIC & ~AF, AF)
            for answer in (RAX, RCX, RDX):  # every CPU has its own
                self.code.load(answer, answer)
        else:
            self.code.raw(b"\x0f\x22\xd0")  # mov cr2, rax

    def serialize_after_string(self) -> None:
        """Serialize before code that a string instruction has written, where only the order of its stores is open."""
        if not self.may(CODE_BY_STRINGS):
            self.serialize()


def quad(value: int) -> bytes:
    """Write a page table entry."""
    return pack("<Q", value)
