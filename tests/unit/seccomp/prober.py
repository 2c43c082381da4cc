"""Makes system calls under our own filters: a program of its own, which makes each call in a child of its own.

Input: one JSON list a line, [thread, number, arguments]. Output: one word a line, `runs` or `killed`. Arguments are
64-bit numbers, or the word `me` for the child's process.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence

from hibana.seccomp import filters
from hibana.seccomp.install import install


def main() -> None:
    """Answer line by line."""
    engine, api = sys.argv[1], sys.argv[2] == "api"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    choice = filters.built_in(api=api)
    choice(engine)  # loads what the children must not load
    libc = ctypes.CDLL(None)
    for line in sys.stdin:
        thread, number, arguments = json.loads(line)
        print(_probe(choice, engine, thread, libc, number, arguments), flush=True)


def _probe(
    choice: filters.Choice, engine: str, thread: str, libc: ctypes.CDLL, number: int, arguments: Sequence[int | str]
) -> str:
    child = os.fork()
    if not child:
        values = [ctypes.c_uint64(os.getpid() if value == "me" else int(value)) for value in arguments]
        install(getattr(choice(engine), thread))
        libc.syscall(ctypes.c_long(number), *values)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS else "runs"


if __name__ == "__main__":
    main()
