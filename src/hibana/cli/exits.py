"""How the process ends: exit codes and last words (api.md §8.1, §8.3)."""

import atexit
import os
from types import TracebackType
from typing import Final, NoReturn

from hibana.errors import Panic, VmmError
from hibana.observe import log, metrics
from hibana.observe.failure import described
from hibana.observe.metrics_groups import METRICS

OK: Final = 0
GENERIC_ERROR: Final = 1
UNEXPECTED_ERROR: Final = 2
BAD_SYSCALL: Final = 148
SIGBUS: Final = 149
SIGSEGV: Final = 150
SIGXFSZ: Final = 151
BAD_CONFIGURATION: Final = 152
ARGUMENT_PARSING: Final = 153
SIGXCPU: Final = 154
SIGHUP: Final = 156
SIGILL: Final = 157

_STDERR: Final = 2


def succeeded() -> int:
    """Say that all is well, as the last line of the log; give the exit code."""
    log.info("Firecracker exiting successfully. exit_code=0")
    return OK


def failed(error: VmmError) -> int:
    """Say what went wrong, in the log and on stderr; give the exit code."""
    log.error(str(error))
    say(_STDERR, f"Error: {error}")
    log.error(f"Firecracker exiting with error. exit_code={error.exit_code}")
    return error.exit_code


def say(fd: int, line: str) -> None:
    """Write a line for whoever started the program, and who may have stopped listening."""
    try:
        os.write(fd, f"{line}\n".encode("utf-8", "replace"))
    except OSError:
        pass


def panic(error: Exception) -> NoReturn:
    """Abort as the reference does where it panics: for some mistakes of the user's, and for all mistakes of ours."""
    log.error(f"Firecracker panicked at {_origin(error.__traceback__)}:\n{error}")
    if not isinstance(error, Panic):
        say(_STDERR, described(error))
    METRICS.vmm.panic_count = 1
    metrics.flush_or_count()
    _put_back()
    os.abort()


def at_once(code: int) -> NoReturn:
    """End the process here and now, but leave the terminal as it was found."""
    _put_back()
    os._exit(code)


def _put_back() -> None:
    # What `os._exit` and `os.abort` skip: host ends that changed something outside the process registered it there.
    atexit._run_exitfuncs()


def _origin(traceback: TracebackType | None) -> str:
    """Name the place an error comes from, as `file:line:column`."""
    if traceback is None:
        return "-"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    _line, _end_line, column, _end_column = list(code.co_positions())[traceback.tb_lasti // 2]
    module = str(traceback.tb_frame.f_globals["__name__"])
    return f"src/{module.replace('.', '/')}.py:{traceback.tb_lineno}:{(column or 0) + 1}"
