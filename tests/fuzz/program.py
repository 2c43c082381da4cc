"""A program, made from nothing but a seed: its blocks, the memory it starts with, what the host will do for it."""

import random
from collections.abc import Collection
from struct import pack_into
from typing import Final, NamedTuple

from hibana.engine.state import Regs
from hibana.units import PAGE
from tests.fuzz import (
    blocks_code,
    blocks_compute,
    blocks_events,
    blocks_execute,
    blocks_paging,
    functions,
    handlers,
    tables,
    world,
)
from tests.fuzz.cpus import Kind, left_out
from tests.fuzz.encoder import NE, RAX, Code
from tests.fuzz.generator import Action, Block, Generator
from tests.fuzz.world import GLOBAL, PROGRAM, K, Layout, U, at

_FOR_ANY_RING: Final = {**blocks_compute.BLOCKS, **blocks_code.BLOCKS, **blocks_events.FOR_ANY_RING}
BLOCKS: Final = {
    0: {**_FOR_ANY_RING, **blocks_paging.BLOCKS, **blocks_execute.BLOCKS, **blocks_events.BLOCKS},
    3: _FOR_ANY_RING,
}
"""Ring in which a program begins → what it may consist of."""
_FEWEST: Final = 4
_MOST: Final = 20
_FAVOURITES: Final = 7
_FAVOUR: Final = 8
_LARGEST: Final = (world.FRAMES - PROGRAM - 1) * PAGE
"""The last frame of the program's is left for strings that run off its end."""

_STAR: Final = 0xC0000081
_LSTAR: Final = 0xC0000082
_FMASK: Final = 0xC0000084
_SELECTORS: Final = 0x28 << 48 | world.KERNEL_CODE << 32
_MASKED_BY_SYSCALL: Final = 0x40700  # AC DF IF TF

_DATA_POOL: Final = tuple(random.Random(seed).randbytes(PAGE) for seed in range(24))


class _Place(NamedTuple):
    """A number in memory."""

    region: int
    frame: int
    offset: int

    @property
    def address(self) -> int:
        """Give its virtual address."""
        return at(self.region, self.frame, self.offset)


_PASSES: Final = {0: _Place(K, world.RECORD, world.PASSES), 3: _Place(U, world.USER_STACK, 0)}
"""Ring → how often the whole program is still to run."""


class Program(NamedTuple):
    """All that a machine needs to run it."""

    seed: int
    names: tuple[str, ...]
    """The kinds of all its blocks; those left out are in brackets."""
    layout: Layout
    image: bytes
    """The frames of its world."""
    ring: int
    regs: Regs
    cr4: int
    msrs: dict[int, int]
    actions: dict[int, Action]
    hectic: bool
    """Somebody kicks the runner all the time."""
    listing: tuple[tuple[str, int, bytes], ...]
    """Every block that is in it: name, address, code."""


def generate(seed: int, kind: Kind, without: Collection[int] = ()) -> Program:
    """Make the program of a seed; `without` some of its blocks."""
    g = Generator(seed, kind.ring, left_out(kind))
    blocks_of_ring = BLOCKS[kind.ring]
    k_global, low_global, cr4 = g.chance(0.7), g.chance(0.3), world.CR4 | (world.CR4_PGE if g.chance(0.7) else 0)
    passes, hectic = 1 + g.below(3), g.chance(0.25)
    first = at(g.home, PROGRAM, g.below(PAGE))
    blocks = [g.block(name, blocks_of_ring[name].body) for name in _choose(g, kind)]
    kept = [None if number in without else block for number, block in enumerate(blocks)]
    image = bytearray(tables.image(g.layout, k_global, low_global, g.ist))
    _fill(g, image, k_global)
    pack_into("<I", image, _PASSES[kind.ring].frame * PAGE + _PASSES[kind.ring].offset, passes)
    listing = _place(g, image, first, [block for block in kept if block])
    regs = Regs(*(g.dice.getrandbits(64) for _ in range(16)))
    regs.rip, regs.rsp, regs.rflags = first, g.stack_top, 2 | g.dice.getrandbits(12) & 0x8D5 | g.pick((0, 0x200))
    if kind.ring:
        regs.rflags |= 0x200  # with a real CPU below it, there is no ring 3 without interrupts
    names = tuple(block.name if keep else f"({block.name})" for block, keep in zip(blocks, kept, strict=True))
    msrs = {_STAR: _SELECTORS, _LSTAR: at(K, world.HANDLERS, handlers.SYSTEM_CALL), _FMASK: _MASKED_BY_SYSCALL}
    return Program(seed, names, g.layout, bytes(image), kind.ring, regs, cr4, msrs, g.actions, hectic, listing)


def _choose(g: Generator, kind: Kind) -> list[str]:
    """Choose the kinds of the blocks: a few of them much more often than the others."""
    names = [name for name in BLOCKS[kind.ring] if name not in left_out(kind)]
    weights = [BLOCKS[kind.ring][name].weight * 1.0 for name in names]
    for _ in range(_FAVOURITES):
        weights[g.below(len(weights))] *= _FAVOUR
    return g.dice.choices(names, weights, k=_FEWEST + g.below(_MOST - _FEWEST))


def _fill(g: Generator, image: bytearray, k_global: bool) -> None:
    """Give the program functions to call and data to work with; make some pages of region K an exception."""
    pool = functions.POOLS[g.split]
    for frame in range(world.CODE, world.CODE + world.CODE_FRAMES):
        image[frame * PAGE : (frame + 1) * PAGE] = g.pick(pool)
    for frame in range(world.DATA, world.DATA + world.DATA_FRAMES):
        if g.chance(0.8):
            image[frame * PAGE : (frame + 1) * PAGE] = g.pick(_DATA_POOL)
    if g.chance(0.2):
        for _ in range(1 + g.below(6)):
            index = g.below(world.FRAMES)
            image[world.PT_K * PAGE + 8 * index + 1] ^= GLOBAL >> 8


def _place(g: Generator, image: bytearray, first: int, blocks: list[Block]) -> tuple[tuple[str, int, bytes], ...]:
    """Put the blocks one behind the other, and the end behind them."""
    begin = PROGRAM * PAGE + (first & PAGE - 1)
    place, listing = begin, []
    for block in (*blocks, _end(g.ring, first)):
        if place + len(block.code) > PROGRAM * PAGE + _LARGEST:
            raise OverflowError("the program is too large")
        image[place : place + len(block.code)] = block.code
        for position, target, region in block.absolutes:
            pack_into("<Q", image, place + position, region + place + target)
        for number in block.actions:
            g.actions[number] = _aim(g.actions[number], place)
        listing.append((block.name, place - begin + first, bytes(image[place : place + len(block.code)])))
        place += len(block.code)
    return tuple(listing)


def _aim(action: Action, place: int) -> Action:
    """Turn writes into a block's own code into writes into frames."""
    writes = []
    for write in action.writes:
        if write.frame < 0:
            start = place + write.offset
            writes += functions.host_write(start // PAGE, start % PAGE, write.content)
        else:
            writes.append(write)
    return Action(tuple(writes), action.through_window)


def _end(ring: int, first: int) -> Block:
    """Begin again, or come to the end of all programs."""
    code = Code()
    again, stay = code.label(), code.label()
    code.da(b"\xff", 1, _PASSES[ring].address)  # dec dword ptr
    code.load(RAX, first)
    code.jcc(NE, again)
    if ring:
        code.ra(b"\x89", RAX, world.USER_DEVICE + world.REGISTER_END)
        code.bind(stay)
        code.jmp(stay)
    else:
        code.load(RAX, at(K, world.HANDLERS, handlers.FINISH))
    code.bind(again)
    code.jump_to(RAX)
    return Block("end", *code.finish(), range(0))
