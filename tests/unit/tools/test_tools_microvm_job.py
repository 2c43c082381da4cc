"""Finding a command's output and exit code in the stream of a serial console."""

import itertools
import os
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tools.microvm.job import Job, Output, Terminal

WORD = "0123456789abcdef"
BEGIN = f"\036{WORD} begin\n".encode()


def end(code: int) -> bytes:
    return f"\036{WORD} exit {code}\n".encode()


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@given(st.binary(max_size=60), st.integers(0, 255), st.lists(st.integers(0, 500), max_size=12))
def test_output_arrives_in_any_pieces(text: bytes, code: int, cuts: list[int]) -> None:
    output = Output(WORD)
    stream = b"[ 0.1] kernel\r\n" + BEGIN + text + end(code) + b"[ 2.0] reboot\r\n"
    shown = b"".join(output.feed(piece) for piece in cut(stream, cuts))
    assert shown == text
    assert output.exit_code == code


def test_nothing_is_shown_before_the_command_begins() -> None:
    output = Output(WORD)
    assert output.feed(b"kernel says hello\r\n") == b""
    assert not output.began


def test_output_is_not_held_back_until_the_end() -> None:
    output = Output(WORD)
    assert output.feed(BEGIN + b"half a li") == b"half a li"


def test_another_word_ends_nothing() -> None:
    output = Output(WORD)
    output.feed(BEGIN)
    assert output.feed(b"\036ffff exit 0\n") == b"\036ffff exit 0\n"
    assert output.exit_code is None


def test_a_script_keeps_the_words_of_its_command_apart() -> None:
    script = Job(["echo", "two words", "$HOME", "it's"]).script()
    assert "echo 'two words' '$HOME' 'it'\"'\"'s' </dev/null\n" in script


def test_a_script_runs_and_reports_in_any_shell(tmp_path: Path) -> None:
    job = Job(["sh", "-c", "echo out; exit 7"])
    stty = tmp_path / "stty"
    stty.write_text("#!/bin/sh\n")
    stty.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    stream = subprocess.run(["sh", "-c", job.script()], check=True, capture_output=True, env={"PATH": path}).stdout
    output = Output(job.word)
    assert (output.feed(stream), output.exit_code) == (b"out\n", 7)


def test_a_terminal_has_its_size_and_kind() -> None:
    script = Job(["sh", "-i"], Terminal("xterm", 50, 132)).script()
    assert "stty rows 50 cols 132\n" in script
    assert "TERM=xterm setsid -c sh -i <>/dev/ttyS0" in script


def test_the_end_is_told_to_a_terminal_that_was_hung_up_meanwhile() -> None:
    """As the kernel does when the session on it ends: who had it open before reaches nobody any more."""
    script = Job(["sh"], Terminal("xterm", 50, 132, device="/dev/hvc0")).script()
    assert script.splitlines()[-1].endswith("exit %d\\n' $? >/dev/hvc0")
