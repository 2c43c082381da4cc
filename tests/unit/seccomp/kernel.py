"""The kernel's side of seccomp, twice: an interpreter of BPF, and what a policy means, read off its rules.

The two know nothing of each other, nor of the compiler that connects them.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from hibana.seccomp.bpf import Instruction
from hibana.seccomp.policy import Action, Condition, Filter
from hibana.seccomp.syscalls import NUMBERS

X86_64: Final = 0xC000003E
AARCH64: Final = 0xC00000B7
COLUMNS: Final = {X86_64: 0, AARCH64: 1}
KILL: Final = 0x80000000

_WORD: Final = (1 << 32) - 1
_DATA: Final = Struct("<IIQ6Q")
ANSWERS: Final = {
    "allow": 0x7FFF0000,
    "log": 0x7FFC0000,
    "trace": 0x7FF00000,
    "errno": 0x00050000,
    "trap": 0x00030000,
    "kill_thread": 0x00000000,
    "kill_process": KILL,
}


class Call(NamedTuple):
    """A system call as a filter sees it."""

    number: int
    arguments: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)
    architecture: int = X86_64

    def record(self) -> bytes:
        """Write `struct seccomp_data`."""
        return _DATA.pack(self.number, self.architecture, 0x7F0000001000, *self.arguments)


def run(program: Sequence[Instruction], call: Call) -> int:
    """Run a program; give what it returns. Fails where the kernel would refuse the program."""
    answer, _ = trace(program, call)
    return answer


def trace(program: Sequence[Instruction], call: Call) -> tuple[int, int]:
    """Run a program; give what it returns, and how many instructions that took."""
    record = call.record()
    register = at = steps = 0
    while True:
        code, jt, jf, k = program[at]
        steps += 1
        at += 1
        match code:
            case 0x20:
                assert k % 4 == 0 and k < len(record)
                register = int.from_bytes(record[k : k + 4], "little")
            case 0x54:
                register &= k
            case 0x05:
                at += k
            case 0x15:
                at += jt if register == k else jf
            case 0x25:
                at += jt if register > k else jf
            case 0x35:
                at += jt if register >= k else jf
            case 0x06:
                return k, steps
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")


def meaning(wanted: Filter, call: Call, *, basic: bool = False) -> int:
    """Say what a filter answers to a call."""
    if call.architecture not in COLUMNS or (call.architecture == X86_64 and call.number >= 1 << 30):
        return KILL
    column = COLUMNS[call.architecture]
    for rule in wanted.rules:
        if NUMBERS[rule.syscall][column] == call.number and (
            basic or all(_holds(condition, call.arguments[condition.index]) for condition in rule.args or ())
        ):
            return _returned(wanted.filter_action)
    return _returned(wanted.default_action)


def _returned(action: Action) -> int:
    return ANSWERS[action[0]] | action[1] if isinstance(action, tuple) else ANSWERS[action]


def _holds(condition: Condition, argument: int) -> bool:
    value = condition.val
    if isinstance(condition.op, tuple):
        mask = condition.op[1]
        return argument & mask == value & mask
    if condition.op == "eq" and condition.type == "dword":
        return argument & _WORD == value & _WORD
    return {
        "eq": argument == value,
        "ne": argument != value,
        "ge": argument >= value,
        "gt": argument > value,
        "le": argument <= value,
        "lt": argument < value,
    }[condition.op]
