"""Opening the API socket: the first thing clients see of a new VMM.

Clients look for the socket file every few milliseconds and connect at once, so bind and listen happen here, before the
VMM imports the rest of itself; what they send meanwhile waits in the backlog. That is also why this file takes
`_socket`: the friendly `socket` costs 4 ms more.
"""

import errno
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket
from typing import Final

from hibana.errors import ApiServerError, ApiSocketInUse, os_text
from hibana.observe import log
from hibana.serde.rust import quoted

_LONGEST_PATH: Final = 107  # sun_path, without its final NUL
_BACKLOG: Final = 1024  # a full backlog is an error to clients that connect without blocking (Go's, for one)


def listen(path: str) -> socket:
    """Create the socket file and listen on it. A file that exists is in somebody's way, and is left alone."""
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
    try:
        _bind(listener, path)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EEXIST):
            raise ApiSocketInUse(path=path) from error
        # Python checks the length of the path itself, without an error number.
        cause = os_text(error) if error.errno else "path must be shorter than SUN_LEN"
        raise ApiServerError(cause=cause) from error
    log.info(f"Listening on API socket ({quoted(path)}).")
    return listener


def _bind(listener: socket, path: str) -> None:
    """Let the file appear when it can be connected to: between bind and listen, the kernel refuses connections."""
    scratch = f"{path}.{os.getpid()}"
    if len(os.fsencode(scratch)) > _LONGEST_PATH:
        listener.bind(path)
        listener.listen(_BACKLOG)
        return
    listener.bind(scratch)
    try:
        listener.listen(_BACKLOG)
        os.link(scratch, path)  # unlike a renaming, fails if the name is taken
    finally:
        os.unlink(scratch)
