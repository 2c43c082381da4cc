"""The `firecracker` program: `main` is the table of contents of the VMM.

Clients look for the API socket every few milliseconds, so everything up to `listen` is written to be fast, and what is
not needed before it is imported after it.
"""

import gc
import os
import sys
from typing import Final

from hibana import FIRECRACKER_VERSION
from hibana.api.listen import listen
from hibana.bus.loop import Loop
from hibana.cli import exits, flags, signals
from hibana.cli.flags import Options
from hibana.errors import (
    DescriptorTableError,
    EnablePciNotHere,
    FileUnreadable,
    LogFileError,
    LoggerInitError,
    MetricsStartError,
    Panic,
    SnapshotFormatNotHere,
    VmmError,
    os_debug,
)
from hibana.observe import log, metrics
from hibana.seccomp import filters
from hibana.seccomp.filters import Choice
from hibana.vmm.engines import wanted_engine
from hibana.whole_file import read_whole_file

SNAPSHOT_VERSION: Final = "11.0.0"

_M_ARENA_MAX: Final = -8
_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2
_DESCRIPTORS: Final = 2048  # what the jailer allows, and more than a microVM has


def main(argv: list[str]) -> None:
    """Run one microVM from its command line to its end. Raises VmmError, whose `exit_code` is the program's."""
    options = flags.parse(argv)
    if answer := _information(options):
        exits.say(_STDOUT, answer)
        return
    log.set_instance(options.instance_id())
    _open_log(options)
    log.info(f"Running Firecracker v{FIRECRACKER_VERSION}")
    loop = Loop()
    signals.install(loop)
    _grow_descriptor_table()
    _allocate_in_one_arena()
    _open_metrics(options)
    choice = _filters(options)
    _refuse_what_is_not_here(options)
    engine = wanted_engine(options.engine)
    config = _read(options.config_file, "configuration")
    metadata = _read(options.metadata, "mmds content")
    numbers = options.numbers()
    listener = None if options.api_sock is None else listen(options.api_sock)

    from hibana.cli.session import Session

    try:
        Session(options, engine, numbers, choice, loop, listener).run(config, metadata)
    finally:
        signals.answer()  # what failed may have failed because a filter trapped it


def entry() -> None:
    """Run the program and end the process, whatever happens."""
    gc.disable()  # a start makes modules and nothing else: looking for garbage among them takes a tenth of it
    try:
        _open_closed_standard_streams()
        main(sys.argv[1:])
        code = exits.succeeded()
    except Panic as error:
        exits.panic(error)
    except VmmError as error:
        code = exits.failed(error)
    except Exception as error:  # ours
        exits.panic(error)
    # Tearing the interpreter down would take longer than many a microVM's whole boot, and has nothing left to do.
    exits.at_once(code)


def _information(options: Options) -> str:
    """Answer a question about the program itself, if that is all that was asked."""
    if options.help:
        return flags.help_text()
    if options.version:
        return flags.version_text()
    if options.snapshot_version:
        return f"v{SNAPSHOT_VERSION}"
    if options.describe_snapshot is not None:
        raise SnapshotFormatNotHere
    return ""


def _open_log(options: Options) -> None:
    try:
        log.configure(
            options.log_path, options.log_level(), options.show_level, options.show_log_origin, options.module
        )
    except LogFileError as error:
        raise LoggerInitError(cause=error) from error


def _grow_descriptor_table() -> None:
    """Have the kernel make room for all descriptors there may be (api.md §7.4, step 9).

    It takes 10 µs as long as there is one thread; with more, the kernel waits 10 ms before a larger table is used.
    """
    limit = os.sysconf("SC_OPEN_MAX")  # -1: there is none
    last = (min(limit, _DESCRIPTORS) if limit > 0 else _DESCRIPTORS) - 1
    try:
        os.fstat(last)
        return  # it is open, so the table has a place for it
    except OSError:
        pass
    try:
        os.dup2(_STDIN, last, inheritable=False)
    except OSError:  # no memory: it grows when it has to
        return
    try:
        os.close(last)
    except OSError as error:
        raise DescriptorTableError from error


def _allocate_in_one_arena() -> None:
    """Have the C library take memory for all threads from one place (mallopt(3)).

    Otherwise it gives each thread an arena, and opens a file under /sys or /proc when it makes the first and when it
    shrinks one, which may be hours later. Our filters trap that.
    """
    import ctypes  # not needed where only the version is printed

    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have no arenas
        mallopt(_M_ARENA_MAX, 1)


def _open_metrics(options: Options) -> None:
    if options.metrics_path is not None:
        try:
            metrics.configure(options.metrics_path)
        except VmmError as error:
            raise MetricsStartError(cause=error) from error


def _filters(options: Options) -> Choice:
    """Choose the seccomp filters. Raises SeccompError."""
    api = options.api_sock is not None
    if options.no_seccomp:
        return filters.unfiltered
    if options.seccomp_filter is not None:
        return filters.from_file(options.seccomp_filter, api=api)
    return filters.built_in(api=api)


def _read(path: str | None, what: str) -> bytes | None:
    """Read a file that the command line names, before anything is promised to clients."""
    if path is None:
        return None
    try:
        return read_whole_file(path)
    except OSError as error:
        raise FileUnreadable(what=what, cause=os_debug(error)) from error


def _refuse_what_is_not_here(options: Options) -> None:
    if options.enable_pci:
        raise EnablePciNotHere


def _open_closed_standard_streams() -> None:
    """Fill descriptors 0 to 2: a file opened later must not be taken for one of them."""
    for fd in range(_STDERR + 1):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
