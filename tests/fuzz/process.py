"""Worker processes as seen from outside: requests go in, reports come back, silence is noticed."""

import os
import select
import subprocess
from collections.abc import Collection
from typing import Final

import msgspec

from tests.fuzz.cpus import Kind
from tests.fuzz.machine import Outcome
from tests.fuzz.variants import ROOT, Variant
from tests.fuzz.worker import READY, Report, Request

SILENCE_S: Final = 60.0
_CHUNK: Final = 1 << 16


class WorkerDied(Exception):
    """A worker ended, or says nothing any more; `seed` is the program it was running."""

    def __init__(self, seed: int, how: str) -> None:
        super().__init__(f"the worker {how} while it ran seed {seed}")
        self.seed = seed
        self.how = how


class Worker:
    """One process that runs programs on one variant."""

    def __init__(self, variant: Variant, mutant: str = "") -> None:
        self._process = subprocess.Popen(
            variant.command(mutant),
            cwd=ROOT,
            env=variant.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._rest = b""
        self._reports = msgspec.json.Decoder(Report)
        self._next = 0
        if self._line().strip() != READY.encode():
            raise RuntimeError(f"{variant.command(mutant)} does not start")

    def ask(self, request: Request) -> None:
        """Send a request; its reports are to be collected by `report`."""
        assert self._process.stdin
        self._next = request.first
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerDied(self._next, "died") from error

    def report(self) -> Report:
        """Wait for the next report."""
        report = self._reports.decode(self._line())
        self._next = report.seed + 1
        return report

    def run(self, kind: Kind, seed: int, without: Collection[int] = ()) -> Outcome:
        """Run one program and give all that it left behind."""
        self.ask(Request(kind, seed, without=sorted(without), whole=True))
        outcome = self.report().outcome
        assert outcome
        return outcome

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            self._rest += self._read()
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _read(self) -> bytes:
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], SILENCE_S)[0]:
            raise WorkerDied(self._next, "says nothing any more")
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            raise WorkerDied(self._next, f"died with status {self._process.wait()}")
        return chunk
