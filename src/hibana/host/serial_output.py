"""Where the guest's console goes: standard output, or the file of `serial_out_path`."""

import os

from hibana.devices.rate_limiter import TokenBucket
from hibana.errors import SerialOutError, os_text
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS


def open_serial_file(path: str) -> int:
    """Open the file or FIFO of `serial_out_path` for a SerialOutput. Raises SerialOutError.

    Neither truncated nor appended to; opening a FIFO for reading too needs no reader at the other end.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise SerialOutError(cause=os_text(error)) from error


class SerialOutput:
    """Writes at once what it gets: what a dying guest says last is out before it dies."""

    def __init__(self, fd: int) -> None:
        """Write to a non-blocking descriptor, which stays the caller's."""
        self._fd = fd

    def write(self, content: bytes) -> int:
        """Write bytes; those that nobody takes now are lost, for the guest must not wait for a reader."""
        try:
            taken = os.write(self._fd, content)
        except OSError as error:
            if len(content) > 1:
                return self._write_singly(content)
            log.error_limited(f"Failed the write to serial: {os_text(error)}")
            METRICS.uart.error_count += 1
            return 0
        return taken if taken == len(content) else taken + self._write_singly(content[taken:])

    def _write_singly(self, content: bytes) -> int:
        """Write byte by byte, because a pipe takes the whole of a short piece or nothing."""
        return sum(self.write(content[at : at + 1]) for at in range(len(content)))


class RateLimitedOutput:
    """Lets through what a token bucket has room for, and drops the rest without a word (api.md §3.11)."""

    def __init__(self, output: SerialOutput, bucket: TokenBucket) -> None:
        """Limit an output to one byte a token."""
        self._output = output
        self._bucket = bucket

    def write(self, content: bytes) -> int:
        """Write or drop bytes; only those that should have gone out and did not are lost."""
        passed = bytes(byte for byte in content if self._bucket.reduce(1) is not None)
        dropped = len(content) - len(passed)
        METRICS.uart.rate_limiter_dropped_bytes += dropped
        return dropped + self._output.write(passed) if passed else dropped
