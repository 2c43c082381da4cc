"""Classic BPF, as far as seccomp speaks it (seccomp(2), Documentation/networking/filter.rst), and its assembler.

A program looks at one record, `struct seccomp_data`, through one register, and ends by returning what the kernel shall
do. It can only jump forward, so it always ends. Conditional jumps reach 255 instructions, unconditional ones any.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

LOAD: Final = 0x20
"""Take the 32-bit word at offset k of the record into the register."""
AND: Final = 0x54
JUMP: Final = 0x05
JUMP_EQUAL: Final = 0x15
JUMP_GREATER: Final = 0x25
JUMP_AT_LEAST: Final = 0x35
RETURN: Final = 0x06

NUMBER: Final = 0  # struct seccomp_data: number of the system call, architecture, instruction pointer, arguments
ARCHITECTURE: Final = 4
ARGUMENTS: Final = 16

KILL_THREAD: Final = 0x00000000
TRAP: Final = 0x00030000
ERRNO: Final = 0x00050000
TRACE: Final = 0x7FF00000
LOG: Final = 0x7FFC0000
ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000

MAX_INSTRUCTIONS: Final = 4096
REACH: Final = 255
INSTRUCTION: Final = Struct("<HBBI")  # struct sock_filter, on the architectures we compile for


class Instruction(NamedTuple):
    """One instruction: where to go when a comparison holds or fails is counted from the next one."""

    code: int
    jt: int
    jf: int
    k: int


class Label:
    """A place in a program."""

    __slots__ = ()


class Step(NamedTuple):
    """An instruction that jumps to labels; without one it goes on with the next."""

    code: int
    k: int = 0
    then: Label | None = None
    otherwise: Label | None = None


Line: TypeAlias = Step | Label


def assemble(lines: Iterable[Line]) -> list[Instruction]:
    """Replace labels by distances. Raises OverflowError where a conditional jump goes too far."""
    steps: list[Step] = []
    places: dict[Label, int] = {}
    for line in lines:
        if isinstance(line, Label):
            places[line] = len(steps)
        else:
            steps.append(line)
    return [_resolve(step, at + 1, places) for at, step in enumerate(steps)]


def _resolve(step: Step, following: int, places: dict[Label, int]) -> Instruction:
    then = places[step.then] - following if step.then else 0
    otherwise = places[step.otherwise] - following if step.otherwise else 0
    if step.code == JUMP:
        return Instruction(JUMP, 0, 0, then)
    if max(then, otherwise) > REACH:
        raise OverflowError
    return Instruction(step.code, then, otherwise, step.k)


def pack(program: Sequence[Instruction]) -> bytes:
    """Write a program as the kernel reads it."""
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def unpack(program: bytes) -> list[Instruction]:
    """Read a program that was packed."""
    return [Instruction(*fields) for fields in INSTRUCTION.iter_unpack(program)]
