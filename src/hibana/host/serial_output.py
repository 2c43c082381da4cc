"""Where the guest's console goes: standard output, or the file of `serial_out_path`."""

import os
from typing import Final

from hibana.devices.rate_limiter import TokenBucket
from hibana.errors import SerialOutError, os_text
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

# The guest sends byte by byte; an index costs a third of making a new object each time.
_BYTES: Final = tuple(bytes((value,)) for value in range(256))


def open_serial_file(path: str) -> int:
    """Open the file or FIFO of `serial_out_path` for a SerialOutput. Raises SerialOutError.

    Neither truncated nor appended to; opening a FIFO for reading too needs no reader at the other end.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise SerialOutError(cause=os_text(error)) from error


class SerialOutput:
    """Writes each byte at once: what a dying guest says last is out before it dies.

    Costs one system call a byte, 0.4 µs into a file; collecting lines instead would make a boot 1 % faster.
    """

    def __init__(self, fd: int) -> None:
        """Write to a non-blocking descriptor, which stays the caller's."""
        self._fd = fd

    def write(self, byte: int) -> bool:
        """Write one byte; False when nobody takes it now, for the guest must not wait for a reader."""
        try:
            os.write(self._fd, _BYTES[byte])
        except OSError as error:
            log.error_limited(f"Failed the write to serial: {os_text(error)}")
            METRICS.uart.error_count += 1
            return False
        return True


class RateLimitedOutput:
    """Lets through what a token bucket has room for, and drops the rest without a word (api.md §3.11)."""

    def __init__(self, output: SerialOutput, bucket: TokenBucket) -> None:
        """Limit an output to one byte a token."""
        self._output = output
        self._bucket = bucket

    def write(self, byte: int) -> bool:
        """Write or drop one byte; only one that should have gone out and did not is lost."""
        if self._bucket.reduce(1) is None:
            METRICS.uart.rate_limiter_dropped_bytes += 1
            return True
        return self._output.write(byte)
