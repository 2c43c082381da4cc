"""One thread per engine runner: run the guest, pause, do what others ask, report the end.

Everybody talks to the thread by posting a task; a task runs between two stretches of guest code. Pausing is such a
task, and so is a frame from a tap on the soft engine, where only this thread may touch guest memory. While the guest
runs, `Runner.kick` brings the thread back; while it is paused, the queue itself wakes it.

A guest that has ended never runs again, whoever asks for it meanwhile: between the end, which comes from here, and the
end of the VMM, which is the loop's business, requests may still arrive.
"""

import ctypes
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from hibana.engine.interface import Reason, Runner, Stop
from hibana.errors import VcpuFilterError, VcpusDoNotAnswer, VcpuThreadError
from hibana.observe import log
from hibana.observe.failure import described

T = TypeVar("T")

ANSWER_TIMEOUT_S: Final = 30.0
_PR_SET_NAME: Final = 15
_NO_MORE_THREADS: Final = "Resource temporarily unavailable (os error 11)"  # all that pthread_create can mean by it


class VcpuThread:
    """The thread `fc_vcpu N`, created paused."""

    def __init__(
        self, index: int, runner: Runner, on_stop: Callable[[Stop], None], confine: Callable[[], None]
    ) -> None:
        """Prepare the thread.

        `confine` is called on it before anything else, and may fail; `on_stop` when the guest has ended by itself.
        """
        self.name = f"fc_vcpu {index}"
        self._index = index
        self._confine = confine
        self._runner = runner
        self._on_stop = on_stop
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._confined: SimpleQueue[Exception | None] = SimpleQueue()
        self._running = False
        self._ended = False
        self._finished = False
        self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)

    def start(self) -> None:
        """Start the thread; the guest stays paused until `resume`. Raises VcpuThreadError, VcpuFilterError."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise VcpuThreadError(cause=_NO_MORE_THREADS) from error
        if failure := self._confined.get():
            raise VcpuFilterError(index=self._index, cause=failure) from failure

    def post(self, task: Callable[[], None]) -> None:
        """Run a task on this thread soon. Safe from any thread; an exception in it ends the microVM."""
        self._tasks.put(task)
        self._runner.kick()

    def ask(self, question: Callable[[], T]) -> T:
        """Run a function on this thread and wait for its result or exception.

        Raises VcpusDoNotAnswer if that takes too long. Never call it on this thread.
        """
        answers: SimpleQueue[tuple[T, None] | tuple[None, Exception]] = SimpleQueue()

        def task() -> None:
            try:
                answers.put((question(), None))
            except Exception as error:
                answers.put((None, error))

        self.post(task)
        try:
            answer, error = answers.get(timeout=ANSWER_TIMEOUT_S)
        except Empty:
            raise VcpusDoNotAnswer from None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]  # the pair is (answer, None) here

    def pause(self) -> None:
        """Stop running guest code and wait until it has stopped. Raises VcpusDoNotAnswer."""
        self.ask(lambda: self._set_running(False))

    def resume(self) -> None:
        """Run guest code again, unless the guest has ended. Raises VcpusDoNotAnswer."""
        self.ask(lambda: self._set_running(True))

    def halt(self) -> None:
        """Stop running guest code soon and for good, without waiting. Safe from any thread, this one included."""
        self.post(self._end)

    def finish(self) -> None:
        """End the thread, if there is one, and wait for it. Raises VcpusDoNotAnswer."""
        if self._thread.is_alive():
            self.post(self._finish)
            self._thread.join(ANSWER_TIMEOUT_S)
            if self._thread.is_alive():
                raise VcpusDoNotAnswer

    def _set_running(self, running: bool) -> None:
        self._running = running and not self._ended

    def _end(self) -> None:
        self._running = False
        self._ended = True

    def _finish(self) -> None:
        self._end()
        self._finished = True

    def _main(self) -> None:
        name_thread(self.name)
        log.set_thread_name(self.name)
        try:
            self._confine()
        except Exception as error:
            self._confined.put(error)
            return
        self._confined.put(None)
        while not self._finished:
            try:
                self._work()
            except Exception as error:  # ours: a task or a device has a bug; the VMM reports it and shuts down in order
                self._stopped(Stop(Reason.FAILED, described(error)))

    def _work(self) -> None:
        if not self._running:
            self._tasks.get()()
            return
        while True:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                break
            task()
        if self._running:
            stop = self._runner.run()
            if stop.reason is not Reason.KICKED:
                self._stopped(stop)

    def _stopped(self, stop: Stop) -> None:
        self._end()
        self._on_stop(stop)


def name_thread(name: str) -> None:
    """Give the calling thread its name in the kernel; clients find vCPUs, and the process itself, by such names."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
