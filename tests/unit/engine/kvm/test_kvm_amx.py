"""Asking the kernel for AMX; the kernel is a list of answers."""

import ctypes
import errno
from collections.abc import Sequence

import pytest

from hibana.engine.kvm import amx
from hibana.errors import EngineError
from hibana.observe import log

SUPPORTED, REQUEST = 0x1021, 0x1025
AMX = 1 << 18


class Kernel:
    """Answers `arch_prctl`: 0, or the number of an error."""

    def __init__(self, patch: pytest.MonkeyPatch, mask: int, *answers: int) -> None:
        self.asked: list[tuple[int, int]] = []
        self.said: list[str] = []
        self._mask = mask
        self._answers = list(answers)
        patch.setattr(ctypes, "CDLL", lambda name, use_errno: self)
        patch.setattr(log, "info", self.said.append)

    @property
    def syscall(self) -> "Kernel":
        return self

    argtypes: Sequence[object] = ()

    def __call__(self, number: int, request: int, argument: int) -> int:
        assert number == 158
        self.asked.append((request, argument if request == REQUEST else 0))
        if request == SUPPORTED:
            ctypes.c_uint64.from_address(argument).value = self._mask
        answer = self._answers.pop(0)
        ctypes.set_errno(answer)
        return -1 if answer else 0


def test_where_there_is_amx_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, AMX | 0xFF, 0, 0)
    amx.permit()
    assert kernel.asked == [(SUPPORTED, 0), (REQUEST, 18)]
    assert kernel.said == []


def test_where_there_is_none_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, 0xFF, 0)
    amx.permit()
    assert kernel.asked == [(SUPPORTED, 0)]
    assert kernel.said == []


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ((errno.EINVAL,), "Dynamic XSTATE feature enabling is not supported."),
        ((0, errno.EINVAL), "Dynamic XSTATE feature enabling is not supported for guest."),
    ],
)
def test_an_older_kernel_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[int, ...], sentence: str
) -> None:
    kernel = Kernel(monkeypatch, AMX, *answers)
    amx.permit()
    assert kernel.said == [sentence]


def test_a_refusal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, AMX, 0, errno.EPERM)
    with pytest.raises(EngineError) as caught:
        amx.permit()
    assert str(caught.value) == "Kvm error: Architecture specific error: Operation not permitted (os error 1)"


def test_this_kernel_understands_the_question() -> None:
    amx.permit()
