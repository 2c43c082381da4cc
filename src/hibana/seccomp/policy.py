"""The language of policies (operations.md §2.2): what the threads of each category may ask of the kernel.

A filter is a list of rules. The first question is the system call, then its arguments; all conditions of a rule must
hold, and one rule that matches is enough: then `filter_action` is taken, otherwise `default_action`. Keys that mean
nothing here are ignored, so every rule has room for a comment.
"""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import field

from hibana.serde.records import decode
from hibana.serde.shapes import U8, U16, U64, Loose, Tagged

_ACTIONS: Final = Tagged(
    (
        ("allow", None),
        ("errno", U16),
        ("kill_thread", None),
        ("kill_process", None),
        ("log", None),
        ("trace", U16),
        ("trap", None),
    )
)
_OPERATORS: Final = Tagged(
    (("eq", None), ("ge", None), ("gt", None), ("le", None), ("lt", None), ("masked_eq", U64), ("ne", None))
)

Action: TypeAlias = Annotated[str | tuple[str, int], _ACTIONS]
"""What happens: a word, or a word and what the program or its tracer is told."""

Operator: TypeAlias = Annotated[str | tuple[str, int], _OPERATORS]


class Condition(Loose):
    """What one argument must be. Only `eq` looks at its type: the upper half of a `dword` may be anything."""

    index: U8
    op: Operator
    val: U64
    type: Literal["dword", "qword"]

    def masked(self) -> tuple[int, int] | None:
        """Give (mask, value) if the condition is that the argument, masked, is a value; None if it compares sizes."""
        if isinstance(self.op, tuple):
            mask = self.op[1]
        elif self.op == "eq":
            mask = 0xFFFFFFFF if self.type == "dword" else 0xFFFFFFFF_FFFFFFFF
        else:
            return None
        return mask, self.val & mask


class SyscallRule(Loose):
    """A system call, and what its arguments must be; without conditions they may be anything."""

    syscall: str
    args: list[Condition] | None = None


class Filter(Loose):
    """The rules of a category of threads."""

    default_action: Action
    filter_action: Action
    rules: list[SyscallRule] = field(name="filter")


def parse(text: bytes) -> dict[str, Filter]:
    """Read a policy: a filter for each category. Raises JsonError."""
    return decode(text, dict[str, Filter])
