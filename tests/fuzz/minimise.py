"""From a seed whose program ends differently to a report that a person can read."""

import shutil
import subprocess
import tempfile
from typing import Final

from tests.fuzz.compare import Pair, compare
from tests.fuzz.cpus import TRANSLATOR
from tests.fuzz.program import Program, generate

ATTEMPTS: Final = 12
"""How often a program runs before it counts as ending alike: kicks and timers come at random moments."""
_HISTORY: Final = (0, 1, 4, 16, 64)
_SHOWN: Final = 40
_OBJDUMP: Final = ("objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn")


def report(pair: Pair, seed: int, earliest: int) -> str:
    """Describe what is wrong with a seed; `earliest` is the first one that the workers had run before it."""
    history = _needed_history(pair, seed, earliest)
    if history is None:
        return f"seed {seed}: ended differently once, and not again in {ATTEMPTS} attempts"
    if history:
        return f"seed {seed}: ends differently only after the {history} seeds before it\n{_describe(pair, seed, set())}"
    without = _minimise(pair, seed)
    return f"seed {seed}, again: {_command(pair, seed, without)}\n{_describe(pair, seed, without)}"


def _command(pair: Pair, seed: int, without: set[int]) -> str:
    """Write the command that runs a program again, on the plain and the accelerated engine or on kvm."""
    left_out = f" --without {','.join(map(str, sorted(without)))}" if without else ""
    ring = f" --ring {pair.kind.ring}" if pair.kind.ring else ""
    candidate = "" if pair.kind.cpu == TRANSLATOR else " --with kvm"
    return f"python -m tests.fuzz --seed {seed}{left_out}{ring}{candidate}"


def _needed_history(pair: Pair, seed: int, earliest: int) -> int | None:
    """Find out how many of the programs before it a program needs, to end differently in new workers."""
    for count in _HISTORY:
        if seed - count < earliest:
            break
        pair.restart()
        list(pair.different(seed - count, count))
        if pair.differs(seed, attempts=ATTEMPTS):
            return count
    return None


def _minimise(pair: Pair, seed: int) -> set[int]:
    """Leave out every block without which the program still ends differently; largest pieces first."""
    total = len(generate(seed, pair.kind).names)
    without: set[int] = set()
    size = total // 2
    while size:
        for start in range(0, total, size):
            candidate = without | set(range(start, min(start + size, total)))
            if candidate != without and len(candidate) < total and pair.differs(seed, candidate, ATTEMPTS):
                without = candidate
        size //= 2
    return without


def _describe(pair: Pair, seed: int, without: set[int]) -> str:
    for _ in range(ATTEMPTS):
        first, second = pair.outcomes(seed, without)
        if first != second:
            break
    found = compare(first, second)
    lines = [f"  {what}: {one} | {other}" for what, one, other in found[:_SHOWN]]
    program = generate(seed, pair.kind, without)
    return "\n".join([_summary(program), *lines, listing(program)])


def _summary(program: Program) -> str:
    kicked = ", kicked all the time" if program.hectic else ""
    return f"  {program.layout.name}, CR4 {program.cr4:#x}{kicked}: {', '.join(program.names)}"


def listing(program: Program) -> str:
    """Disassemble the blocks of a program, or show their bytes where there is no disassembler."""
    return "\n".join(f"{name}:\n{_disassemble(addr, code)}" for name, addr, code in program.listing)


def _disassemble(addr: int, code: bytes) -> str:
    if not shutil.which(_OBJDUMP[0]):
        return f"  {addr:x}: {code.hex()}"
    with tempfile.NamedTemporaryFile() as file:
        file.write(code)
        file.flush()
        done = subprocess.run(
            [*_OBJDUMP, f"--adjust-vma={addr:#x}", file.name], capture_output=True, text=True, check=True
        )
    return "\n".join(f"  {line.strip()}" for line in done.stdout.splitlines() if ":\t" in line)
