"""Which filters the threads of a VMM get: ours for the engine on this architecture, the user's, or none.

In the reference the API server is a thread. Here it shares the thread of the event loop with the VMM proper, so that
thread gets the programs of both categories in one: what a rule of `api` matches is answered by `api`, all else by
`vmm`. Without an API there is only `vmm`.
"""

import errno
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from hibana.errors import (
    FilterFileBroken,
    FilterFileError,
    FilterFileTooLarge,
    FilterFormatError,
    FilterReadError,
    InvalidThreadCategories,
    MissingThreadCategory,
    SeccompError,
    VmmError,
    os_text,
)
from hibana.seccomp import bpf
from hibana.seccomp.bpf import Instruction, Label, Step
from hibana.seccomp.container import SIZE_LIMIT, Program, read
from hibana.whole_file import open_for_reading, read_to_the_end

VMM: Final = "vmm"
API: Final = "api"
VCPU: Final = "vcpu"
_CATEGORIES: Final = (VMM, API, VCPU)

_TGKILL: Final = {"x86_64": 234, "aarch64": 131}


class Filters(NamedTuple):
    """Programs for each kind of thread; without any, it is not filtered."""

    loop: tuple[bytes, ...] = ()
    vcpu: tuple[bytes, ...] = ()


Choice = Callable[[str], Filters]
"""Gives the filters for the engine of a name."""


def unfiltered(engine: str) -> Filters:
    """Filter nothing (`--no-seccomp`)."""
    return Filters()


def from_file(path: str, *, api: bool) -> Choice:
    """Take the user's filters, whatever the engine (`--seccomp-filter`). Raises SeccompError."""
    try:
        filters = _combined(_checked(_read(path)), api)
    except VmmError as error:
        raise SeccompError(cause=error) from error
    return lambda engine: filters


def built_in(*, api: bool) -> Choice:
    """Take ours for the engine; they are loaded when it is known."""
    return partial(_built_in, api=api)


def _built_in(engine: str, *, api: bool) -> Filters:
    from hibana.seccomp.builtin import FILTERS  # not before the socket is there

    machine = os.uname().machine
    loop, vcpu = _combined(read(FILTERS[machine][engine]), api)
    own = own_signals(os.getpid(), machine)
    return Filters((own, *loop), (own, *vcpu))  # ours allow no further filter


def _read(path: str) -> dict[str, Program]:
    try:
        fd = open_for_reading(path)
    except OSError as error:
        raise FilterFileError(cause=os_text(error)) from error
    try:
        return read(_content(fd))
    except (FilterFileBroken, FilterFileTooLarge, FilterReadError) as error:
        raise FilterFormatError(cause=error) from error
    finally:
        os.close(fd)


def _content(fd: int) -> bytes:
    try:
        return read_to_the_end(fd, SIZE_LIMIT)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise FilterFileTooLarge(size=max(os.fstat(fd).st_size, SIZE_LIMIT + 1)) from error
        raise FilterReadError(cause=os_text(error)) from error


def _checked(programs: Mapping[str, Program]) -> dict[str, Program]:
    found = {category.lower(): program for category, program in programs.items()}
    if unknown := [category for category in found if category not in _CATEGORIES]:
        raise InvalidThreadCategories(names=",".join(unknown))
    for category in _CATEGORIES:
        if category not in found:
            raise MissingThreadCategory(name=category)
    return found


def _combined(programs: Mapping[str, Program], api: bool) -> Filters:
    vmm, vcpu = programs[VMM].code, programs[VCPU].code
    loop = chained(programs[API], vmm) if api else vmm
    return Filters((loop,) if loop else (), (vcpu,) if vcpu else ())


def chained(first: Program, then: bytes) -> bytes:
    """Make one program of two: the second one answers where no rule of the first one matches."""
    if not first.code or not then:
        return b""
    head = bpf.unpack(first.code)
    for at, instruction in enumerate(head):
        if instruction.code == bpf.RETURN and instruction.k == first.default:
            head[at] = Instruction(bpf.JUMP, 0, 0, len(head) - at - 1)
    return bpf.pack(head) + then


def own_signals(process: int, machine: str) -> bytes:
    """Make a program that traps signals to other processes; a policy cannot say that, for it knows no process."""
    fine, kill = Label(), Label()
    return bpf.pack(
        bpf.assemble(
            [
                Step(bpf.LOAD, bpf.NUMBER),
                Step(bpf.JUMP_EQUAL, _TGKILL[machine], otherwise=fine),
                Step(bpf.LOAD, bpf.ARGUMENTS),
                Step(bpf.JUMP_EQUAL, process, fine, kill),
                kill,
                Step(bpf.RETURN, bpf.TRAP),
                fine,
                Step(bpf.RETURN, bpf.ALLOW),
            ]
        )
    )
