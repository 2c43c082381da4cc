"""How a command that has started something leaves: it tidies up, whoever tells it to go."""

import signal
import sys


def leave_in_order() -> None:
    """Let the signals that mean "go" end the program as an exception would, so that nothing of ours stays behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` wants it
            signal.signal(number, _leave)


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)
