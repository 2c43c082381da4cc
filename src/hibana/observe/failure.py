"""An exception of ours as text for the log.

Unlike Python's own traceback, it does not look for source lines: once filters are installed, no file can be opened, and
in a jail there is none. Nor does it cost 7 ms of imports.
"""

from types import TracebackType


def described(error: BaseException) -> str:
    """Tell where an exception comes from and what it says, with what it was raised from first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{described(cause)}\nand then:\n" if cause else ""
    name = type(error).__qualname__
    text = f"{name}: {error}" if str(error) else name
    return f"{before}Traceback (most recent call last):\n{_frames(error.__traceback__)}{text}"


def _frames(traceback: TracebackType | None) -> str:
    lines = ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        lines += f'  File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_qualname}\n'
        traceback = traceback.tb_next
    return lines
