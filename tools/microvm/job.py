"""What a microVM is for: a script that its /init runs, brought by a second initramfs archive, and how it ended.

The serial console is the only way out, so begin and end are marked in its stream, with a word nobody can guess: what
the kernel says before and after is not the job's output. Any size of command fits, because it is a file.
"""

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tools.guest.cpio import Archive

REPORT: Final = r"""uname -a
field() { sed -n "s/^$1\s*: *//p" "$2" | head -n 1; }
echo "CPU: $(nproc) x $(field 'model name' /proc/cpuinfo)"
echo "memory: $(field MemTotal /proc/meminfo)"
echo "up after $(cut -d' ' -f1 /proc/uptime) s"
"""
SHELL: Final = ("sh", "-i")
SERIAL_PORT: Final = "/dev/ttyS0"


class Terminal(NamedTuple):
    """The terminal that the job gets: what kind, and how large."""

    kind: str
    rows: int
    columns: int
    device: str = SERIAL_PORT
    """What it is called inside."""


def own_terminal(device: str = SERIAL_PORT) -> Terminal | None:
    """Describe the terminal that we are on, for a job to have one like it; None unless it is at both ends of us."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    columns, rows = shutil.get_terminal_size()
    return Terminal(os.environ.get("TERM", "linux"), rows, columns, device)


class Job:
    """One command and the word that marks its output."""

    def __init__(self, command: Sequence[str], terminal: Terminal | None = None) -> None:
        self.word = secrets.token_hex(8)
        self._command = shlex.join(command)
        self.terminal: Final = terminal

    def script(self) -> str:
        """Write what /init runs."""
        begin = f"printf '\\036{self.word} begin\\n'\n"
        end = f"printf '\\036{self.word} exit %d\\n' $?"
        if terminal := self.terminal:
            # A session of its own on the real port: /dev/console cannot be a controlling terminal.
            size = f"stty rows {terminal.rows} cols {terminal.columns}\n"
            run = f"TERM={shlex.quote(terminal.kind)} setsid -c {self._command} <>{terminal.device} >&0 2>&1\n"
            # When its session ends, the kernel hangs up on everybody who has the terminal open.
            return f"#!/bin/sh\n{size}{begin}{run}{end} >{terminal.device}\n"
        # Output arrives byte for byte as it was written.
        return f"#!/bin/sh\nstty -opost\n{begin}{self._command} </dev/null\n{end}\n"

    def initrd(self, base: Path, folder: Path) -> Path:
        """Write an initramfs that is `base` with this job in it."""
        archive = Archive()
        archive.file("job/run", self.script().encode(), 0o755)
        path = folder / "initrd.cpio"
        path.write_bytes(base.read_bytes() + archive.to_bytes())
        return path


class Output:
    """The job's part of the console stream: feed it everything, it gives back what the command wrote."""

    def __init__(self, word: str) -> None:
        self._begin = f"\036{word} begin".encode()
        self._end = f"\036{word} exit ".encode()
        self._pending = b""
        self.began = False
        self.exit_code: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return what can be shown."""
        self._pending += data
        if not self.began and not self._find_begin():
            return b""
        if self.exit_code is not None:
            return b""
        return self._until_end()

    def _find_begin(self) -> bool:
        _, found, rest = self._pending.partition(self._begin)
        if not found or b"\n" not in rest:
            return False
        self._pending = rest.partition(b"\n")[2]
        self.began = True
        return True

    def _until_end(self) -> bytes:
        shown, found, rest = self._pending.partition(self._end)
        if found:
            number, line_end, _ = rest.partition(b"\n")
            if line_end:
                self.exit_code = int(number)
                self._pending = b""
                return shown
            self._pending = found + rest
            return shown
        # The last bytes may be the beginning of the mark.
        at = self._pending.rfind(b"\036")
        if at < 0 or not self._end.startswith(self._pending[at:]):
            at = len(self._pending)
        shown, self._pending = self._pending[:at], self._pending[at:]
        return shown
