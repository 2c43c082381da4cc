"""Running the same programs on two variants, and looking for the first one that does not end alike."""

from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from tests.contract.engine.states import differences
from tests.fuzz.cpus import Kind
from tests.fuzz.machine import Outcome
from tests.fuzz.process import Worker, WorkerDied
from tests.fuzz.variants import Variant
from tests.fuzz.worker import Request

_BATCH: Final = 25


class Pair:
    """Two workers; the programs run on both at the same time."""

    def __init__(self, first: Variant, second: Variant, ring: int = 0, mutant: str = "") -> None:
        self.kind = Kind(ring, second.cpu())
        self._start: tuple[Callable[[], Worker], ...] = (lambda: Worker(first), lambda: Worker(second, mutant))
        self._workers = [start() for start in self._start]

    def different(self, first: int, count: int) -> Iterator[int]:
        """Give the seeds from `first` on whose programs end differently, or kill a worker."""
        end = first + count
        while first < end:
            batch = min(_BATCH, end - first)
            try:
                for worker in self._workers:
                    worker.ask(Request(self.kind, first, batch))
                for seed in range(first, first + batch):
                    if len({worker.report().digest for worker in self._workers}) > 1:
                        yield seed
                first += batch
            except WorkerDied as death:
                yield death.seed
                first = death.seed + 1
                self.restart()

    def outcomes(self, seed: int, without: Collection[int] = ()) -> list[Outcome | str]:
        """Run one program on both; a worker that dies of it is replaced, and how it died stands for its outcome."""
        results: list[Outcome | str] = []
        for index, worker in enumerate(self._workers):
            try:
                results.append(worker.run(self.kind, seed, without))
            except WorkerDied as death:
                results.append(death.how)
                worker.close()
                self._workers[index] = self._start[index]()
        return results

    def differs(self, seed: int, without: Collection[int] = (), attempts: int = 1) -> bool:
        """Tell whether one program ends differently, at least once in some attempts."""
        for _ in range(attempts):
            first, second = self.outcomes(seed, without)
            if first != second:
                return True
        return False

    def restart(self) -> None:
        """Replace both workers by new ones."""
        self.close()
        self._workers = [start() for start in self._start]

    def close(self) -> None:
        """End both workers."""
        for worker in self._workers:
            worker.close()


class Difference(NamedTuple):
    """One thing in which two outcomes differ."""

    what: str
    first: object
    second: object


def compare(first: Outcome | str, second: Outcome | str) -> list[Difference]:
    """List in what two outcomes differ."""
    if isinstance(first, str) or isinstance(second, str):
        return [Difference("the worker", *(one if isinstance(one, str) else one.stop for one in (first, second)))]
    found = [Difference("how it stops", first.stop, second.stop)] if first.stop != second.stop else []
    for name, (one, other) in differences(first.state, second.state).items():
        found.append(Difference(name.lstrip("."), one, other))
    for frame in sorted({*first.frames, *second.frames}):
        one, other = first.frames.get(frame), second.frames.get(frame)
        if one != other:
            found.append(Difference(f"frame {frame}", one and one.hex(), other and other.hex()))
    for index in range(max(len(first.accesses), len(second.accesses))):
        one, other = (run.accesses[index] if index < len(run.accesses) else None for run in (first, second))
        if one != other:
            found.append(Difference(f"access {index}", one, other))
            break
    return found
