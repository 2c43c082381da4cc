"""libseccomp as an oracle, where it is installed: the library that the reference compiles its filters with."""

import ctypes
import os
import tempfile
from typing import Final

import pytest

from hibana.seccomp import bpf
from hibana.seccomp.bpf import Instruction
from hibana.seccomp.policy import Action, Condition, Filter
from tests.unit.seccomp.kernel import AARCH64, ANSWERS, X86_64

_OPERATORS: Final = {"ne": 1, "lt": 2, "le": 3, "eq": 4, "ge": 5, "gt": 6}
_MASKED_EQ: Final = 7
_BAD_ARCHITECTURE: Final = 2  # SCMP_FLTATR_ACT_BADARCH
_NATIVE: Final = {"x86_64": X86_64, "aarch64": AARCH64}[os.uname().machine]


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def _load() -> ctypes.CDLL | None:
    try:
        loaded = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    loaded.seccomp_init.restype = ctypes.c_void_p
    return loaded


library: Final = _load()
needed: Final = pytest.mark.skipif(library is None, reason="libseccomp.so.2 is not installed")


def number(name: str, architecture: int) -> int:
    """Look a system call up; negative if the architecture has none of this name."""
    assert library
    found: int = library.seccomp_syscall_resolve_name_arch(architecture, name.encode())
    return found


def compile_filter(wanted: Filter, architecture: int) -> list[Instruction]:
    """Compile as the reference does: one rule after the other. Raises OSError for what the library refuses."""
    assert library
    context = ctypes.c_void_p(library.seccomp_init(_action(wanted.default_action)))
    _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, bpf.KILL_PROCESS))
    if architecture != _NATIVE:
        _check(library.seccomp_arch_add(context, architecture))
        _check(library.seccomp_arch_remove(context, _NATIVE))
    for rule in wanted.rules:
        comparisons = [_comparison(condition) for condition in rule.args or ()]
        array = (_Comparison * len(comparisons))(*comparisons)
        call = number(rule.syscall, _NATIVE)  # it translates from our own numbers
        action = _action(wanted.filter_action)
        _check(library.seccomp_rule_add_array(context, action, call, len(comparisons), array))
    try:
        return _exported(context)
    finally:
        library.seccomp_release(context)


def _action(action: Action) -> int:
    return ANSWERS[action[0]] | action[1] if isinstance(action, tuple) else ANSWERS[action]


def _comparison(condition: Condition) -> _Comparison:
    if masked := condition.masked():
        return _Comparison(condition.index, _MASKED_EQ, *masked)
    return _Comparison(condition.index, _OPERATORS[str(condition.op)], condition.val, 0)


def _exported(context: ctypes.c_void_p) -> list[Instruction]:
    assert library
    with tempfile.TemporaryFile() as file:
        _check(library.seccomp_export_bpf(context, file.fileno()))
        file.seek(0)
        return bpf.unpack(file.read())


def _check(result: int) -> None:
    if result:
        raise OSError(-result, os.strerror(-result))
