"""A process that runs programs on one engine, as asked on its standard input.

    python -m tests.fuzz.worker ENGINE [MUTANT]

One process for each engine, because the soft engine's switches and patches are process-wide. A request is a line of
JSON; so is the report on each program.
"""

import os
import sys
from typing import BinaryIO, Final

import msgspec

from tests.contract.engine.engines import find
from tests.fuzz import mutants, small_buffer
from tests.fuzz.comparable import comparable
from tests.fuzz.cpus import Kind
from tests.fuzz.machine import Machine, Outcome
from tests.fuzz.program import generate

READY: Final = "ready"
"""What a worker says when it is: one that does not come so far proves nothing."""


class Request(msgspec.Struct):
    """Run the programs of some seeds."""

    kind: Kind
    first: int
    count: int = 1
    without: list[int] = []
    """Blocks to leave out."""
    whole: bool = False
    """Report everything, not just a digest of it."""


class Report(msgspec.Struct):
    """How one program ended."""

    seed: int
    digest: str
    outcome: Outcome | None = None


def _own_output() -> BinaryIO:
    """Keep standard output for reports; the log of the engine goes nowhere."""
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return reports


def main(arguments: list[str]) -> None:
    """Answer requests until there are no more."""
    reports = _own_output()
    engine, reason = find(arguments[0])
    if engine is None:
        raise SystemExit(reason)
    if arguments[0] == "soft":
        small_buffer.use()
    mutant = mutants.MUTANTS[arguments[1]] if len(arguments) > 1 else None
    if mutant:
        mutant.before()
    machine = Machine(engine)
    if mutant:
        mutant.after(machine)
    requests = msgspec.json.Decoder(Request)
    reports.write(f"{READY}\n".encode())
    reports.flush()
    for line in sys.stdin.buffer:
        request = requests.decode(line)
        for seed in range(request.first, request.first + request.count):
            program = generate(seed, request.kind, request.without)
            outcome = comparable(machine.run(program), request.kind)
            report = Report(seed, outcome.digest().hex(), outcome if request.whole else None)
            reports.write(msgspec.json.encode(report) + b"\n")
        reports.flush()
    machine.close()


if __name__ == "__main__":
    main(sys.argv[1:])
