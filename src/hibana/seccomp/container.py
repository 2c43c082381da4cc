"""Files of compiled filters: what `seccompiler-bin` writes and `--seccomp-filter` reads.

    "hibana-seccomp-1\\n"
    for each category, in the order of the alphabet:
        length of its name (u8), the name (UTF-8), what is answered where no rule matches (u32),
        number of instructions (u16), the instructions (struct sock_filter)

Numbers are little-endian. The reference's own format is private to its release, like this one: who brings a filter
compiles it with the compiler that belongs to the VMM.
"""

from collections.abc import Iterator, Mapping
from struct import Struct, error
from typing import Final, NamedTuple

from hibana.errors import FilterFileBroken, FilterFileTooLong
from hibana.seccomp.bpf import INSTRUCTION

SIZE_LIMIT: Final = 100_000
MAGIC: Final = b"hibana-seccomp-1\n"

_NAME: Final = Struct("<B")
_HEAD: Final = Struct("<IH")


class Program(NamedTuple):
    """A compiled filter."""

    code: bytes
    """Instructions as the kernel reads them; none at all stand for no filter."""
    default: int
    """What the program answers where no rule matches."""


def write(programs: Mapping[str, Program]) -> bytes:
    """Write programs by the names of their categories. Raises FilterFileTooLong."""
    content = bytearray(MAGIC)
    for category, (code, default) in sorted(programs.items()):
        name = category.encode()
        count = len(code) // INSTRUCTION.size
        if len(content) + len(name) + len(code) > SIZE_LIMIT or len(name) > 0xFF:
            raise FilterFileTooLong
        content += _NAME.pack(len(name)) + name + _HEAD.pack(default, count) + code
    if len(content) > SIZE_LIMIT:
        raise FilterFileTooLong
    return bytes(content)


def read(content: bytes) -> dict[str, Program]:
    """Read what `write` wrote. Raises FilterFileBroken."""
    if not content.startswith(MAGIC):
        raise FilterFileBroken(cause="it was not written by the seccompiler-bin that belongs to this program")
    try:
        return dict(_programs(content, len(MAGIC)))
    except (error, UnicodeDecodeError):
        raise FilterFileBroken(cause="the file is damaged") from None


def _programs(content: bytes, at: int) -> Iterator[tuple[str, Program]]:
    while at < len(content):
        (size,) = _NAME.unpack_from(content, at)
        at += _NAME.size + size
        name = content[at - size : at].decode()
        default, count = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        code = content[at : at + count * INSTRUCTION.size]
        at += count * INSTRUCTION.size
        if at > len(content):
            raise error
        yield name, Program(code, default)
