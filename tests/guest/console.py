"""The far end of a microVM's serial line: everything it printed, and how to wait for more."""

import threading
import time
from typing import IO


class Console:
    """Reads in a thread of its own, so that a guest never waits for a test to listen."""

    def __init__(self, output: IO[bytes], keyboard: IO[bytes]) -> None:
        self._output = output
        self._keyboard = keyboard
        self._seen = ""
        self._at = 0
        self._closed = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything so far."""
        with self._news:
            return self._seen

    def send(self, text: str) -> None:
        """Type."""
        self._keyboard.write(text.encode())

    def wait_for(self, text: str, timeout: float) -> str:
        """Return what came since the last wait, up to and with `text`."""
        give_up = time.monotonic() + timeout
        with self._news:
            while (found := self._seen.find(text, self._at)) < 0:
                left = give_up - time.monotonic()
                if self._closed or left <= 0:
                    what = "ended" if self._closed else f"said nothing of it for {timeout:.0f} s"
                    raise AssertionError(f"no {text!r}: the console {what}. Its last lines:\n{self._seen[-3000:]}")
                self._news.wait(left)
            start, self._at = self._at, found + len(text)
            return self._seen[start : self._at]

    def join(self) -> None:
        """Wait until the other side has closed."""
        self._reader.join()

    def _read(self) -> None:
        while piece := self._output.read(65536):
            with self._news:
                self._seen += piece.decode(errors="replace")
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()
