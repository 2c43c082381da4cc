"""Run generated programs on two variants of an engine and report those that do not end alike.

python -m tests.fuzz [--programs N] [--first SEED] [--with VARIANT] [--ring 3] [--mutant NAME] [--jobs N] [--enough N]
python -m tests.fuzz --seed SEED [--without BLOCK,BLOCK…] [--with VARIANT] [--ring 3]

Programs begin in ring 0 and go where they like, or begin in ring 3 and stay there. `--with kvm` compares the soft
engine with whatever is behind /dev/kvm; for ring 3 that is the CPU itself, even where KVM emulates ring 0. `cpus.py`
lists what programs for kvm do without, `comparable.py` what is not compared then. A job that has found `--enough`
programs that end differently goes no further.
"""

import argparse
import multiprocessing
import sys
import time

from tests.fuzz.compare import Pair, compare
from tests.fuzz.minimise import listing, report
from tests.fuzz.mutants import MUTANTS
from tests.fuzz.program import BLOCKS, generate
from tests.fuzz.variants import REFERENCE, VARIANTS


def _search(job: tuple[int, int, int, str, int, str]) -> list[str]:
    """Run some programs; report at most `enough` of those that end differently."""
    first, count, enough, candidate, ring, mutant = job
    pair = Pair(VARIANTS[REFERENCE], VARIANTS[candidate], ring, mutant)
    reports: list[str] = []
    for seed in pair.different(first, count):
        print(f"seed {seed} ends differently", file=sys.stderr, flush=True)
        second = Pair(VARIANTS[REFERENCE], VARIANTS[candidate], ring, mutant)
        reports.append(report(second, seed, first))
        second.close()
        if len(reports) == enough:
            break
    pair.close()
    return reports


def _show(seed: int, without: set[int], candidate: str, ring: int, mutant: str) -> int:
    """Run one program and show everything about it."""
    pair = Pair(VARIANTS[REFERENCE], VARIANTS[candidate], ring, mutant)
    found = compare(*pair.outcomes(seed, without))
    pair.close()
    program = generate(seed, pair.kind, without)
    print(listing(program))
    print(f"{program.layout.name}: {', '.join(program.names)}")
    for what, one, other in found:
        print(f"  {what}: {one} | {other}")
    print("ends differently" if found else "ends alike")
    return int(bool(found))


def main() -> int:
    """Search, or show one program."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--with", dest="candidate", choices=sorted(VARIANTS), default="accelerated")
    parser.add_argument("--ring", type=int, choices=sorted(BLOCKS), default=0)
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--enough", type=int, default=10)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    if options.seed is not None:
        without = {int(number) for number in options.without.split(",") if number}
        return _show(options.seed, without, options.candidate, options.ring, options.mutant)
    last = options.first + options.programs
    share = max(1, -(-options.programs // options.jobs))
    jobs = [
        (first, min(share, last - first), options.enough, options.candidate, options.ring, options.mutant)
        for first in range(options.first, last, share)
    ]
    began = time.monotonic()
    with multiprocessing.Pool(options.jobs) as pool:
        reports = [text for texts in pool.map(_search, jobs) for text in texts]
    print("\n\n".join(reports))
    elapsed = time.monotonic() - began
    print(f"{options.programs} programs in {elapsed:.0f} s, {len(reports)} end differently")
    return int(bool(reports))


if __name__ == "__main__":
    sys.exit(main())
