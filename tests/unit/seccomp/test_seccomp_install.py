"""Filters on a thread, in processes of their own: a filter stays."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hibana.errors import FilterRefused, FilterTooLong
from hibana.seccomp import bpf
from hibana.seccomp.bpf import Instruction
from hibana.seccomp.install import install

SRC = Path(__file__).resolve().parents[3] / "src"

# On aarch64 the C library makes mkdir and rmdir of mkdirat and unlinkat.
MKDIR, RMDIR = {"x86_64": (83, 84), "aarch64": (34, 35)}[os.uname().machine]

PROLOGUE = """
import ctypes, errno, os, threading
from hibana.seccomp import bpf
from hibana.seccomp.bpf import Label, Step
from hibana.seccomp.install import install

def refusing(number):
    "Make a program that lets one system call fail."
    fine = Label()
    return bpf.pack(bpf.assemble([
        Step(bpf.LOAD, bpf.NUMBER), Step(bpf.JUMP_EQUAL, number, otherwise=fine),
        Step(bpf.RETURN, bpf.ERRNO | errno.EXDEV), fine, Step(bpf.RETURN, bpf.ALLOW)]))

def attempt(function, *arguments):
    try:
        function(*arguments)
        return "fine"
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def play(story: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"MKDIR, RMDIR = {MKDIR}, {RMDIR}{PROLOGUE}{story}"],
        cwd=folder,
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_filter_holds_on_its_thread_and_on_threads_that_it_starts(tmp_path: Path) -> None:
    story = """
said = []
def inside():
    install([refusing(MKDIR)])
    said.append(attempt(os.mkdir, "a"))
    child = threading.Thread(target=lambda: said.append(attempt(os.mkdir, "b")))
    child.start()
    child.join()
thread = threading.Thread(target=inside)
thread.start()
thread.join()
print(*said, attempt(os.mkdir, "c"))
"""
    assert play(story, tmp_path) == ["EXDEV", "EXDEV", "fine"]


def test_several_filters_hold_together(tmp_path: Path) -> None:
    story = """
install([refusing(MKDIR), refusing(RMDIR), b""])
print(attempt(os.mkdir, "a"), attempt(os.rmdir, "a"), attempt(os.stat, "."))
"""
    assert play(story, tmp_path) == ["EXDEV", "EXDEV", "fine"]


def test_no_filter_changes_nothing(tmp_path: Path) -> None:
    story = """
install([])
install([b""])
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(status["Seccomp"], status["NoNewPrivs"])
"""
    assert play(story, tmp_path) == ["0", "0"]


def test_a_program_longer_than_the_kernel_takes_is_not_even_offered() -> None:
    with pytest.raises(FilterTooLong):
        install([bytes(8 * (bpf.MAX_INSTRUCTIONS + 1))])


def test_a_program_that_the_kernel_refuses_is_said_so() -> None:
    endless = bpf.pack([Instruction(bpf.LOAD, 0, 0, 0)])
    # A thread of its own: it gives up gaining privileges, and what this one starts later would inherit that.
    with ThreadPoolExecutor(1) as threads:
        refused = threads.submit(install, [endless])
        with pytest.raises(
            FilterRefused, match=r"prctl` syscall failed with error code: Invalid argument \(os error 22\)"
        ):
            refused.result()
