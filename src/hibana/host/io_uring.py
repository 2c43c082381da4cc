"""io_uring: requests to the kernel through memory that both sides see (io_uring(7)).

There is no wrapper in the C library, so the three system calls are made by number. The ring that leaves here can do
very little: operations on one registered file, from a list given when it is made. It is set up while disabled, then
restricted, and only then enabled, so that not even we can make it do more (devices.md §5.6). All that can be changed
later is the file; so a drive keeps its ring when its file is exchanged. That matters because operations on a ring pass
no seccomp filter: who may make a ring may open files and sockets.

Two queues share one mapping: we put numbers of entries into the submission queue and advance its tail; the kernel puts
results into the completion queue and advances *its* tail, and says so through an eventfd.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from hibana.errors import (
    IoUringEnableError,
    IoUringEventFdError,
    IoUringFileError,
    IoUringProbeError,
    IoUringRestrictionsError,
    IoUringSetupError,
    MissingIoUringFeature,
    MissingIoUringOperation,
    VmmError,
    os_text,
)

FSYNC: Final = 3
READ: Final = 22
WRITE: Final = 23
_NAMES: Final = {FSYNC: "Fsync", READ: "Read", WRITE: "Write"}

_SETUP: Final = 425  # numbers of the system calls, the same on every architecture
_ENTER: Final = 426
_REGISTER: Final = 427

_SETUP_R_DISABLED: Final = 1 << 6
_FEAT_SINGLE_MMAP: Final = 1 << 0
_FEAT_NODROP: Final = 1 << 1
_ENTER_GETEVENTS: Final = 1 << 0
_SQE_FIXED_FILE: Final = 1 << 0
_OP_SUPPORTED: Final = 1 << 0

_REGISTER_FILES: Final = 2
_REGISTER_EVENTFD: Final = 4
_REGISTER_FILES_UPDATE: Final = 6
_REGISTER_PROBE: Final = 8
_REGISTER_RESTRICTIONS: Final = 11
_REGISTER_ENABLE_RINGS: Final = 12

_RESTRICTION_REGISTER_OP: Final = 0
_RESTRICTION_SQE_OP: Final = 1
_RESTRICTION_SQE_FLAGS_REQUIRED: Final = 3

_RINGS_AT: Final = 0  # where the mappings lie in the ring's descriptor
_ENTRIES_AT: Final = 0x10000000

_PARAMS: Final = Struct("=10I8IQ8IQ")  # io_uring_params: own fields, offsets of submission and of completion queue
_RESTRICTION: Final = Struct("=HBB12x")  # io_uring_restriction: opcode, operation or flags
_PROBE_HEADER: Final = Struct("=BB14x")  # io_uring_probe: last operation, how many follow
_PROBE_OP: Final = Struct("=BBHI")  # io_uring_probe_op: operation, reserved, flags, reserved
_PROBED: Final = 256
_FD: Final = Struct("=i")
_NO_FILE: Final = -1
_FILES_UPDATE: Final = Struct("=I4xQ")  # io_uring_files_update: first index, where the descriptors are
_SQE: Final = Struct("=BBHiQQIIQ24x")  # io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, op flags, user_data
_CQE: Final = Struct("=QiI")  # io_uring_cqe: user_data, res, flags

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long


class _Params(NamedTuple):
    """What the kernel decided about a new ring: sizes, and where things lie in the shared mapping."""

    sq_entries: int
    cq_entries: int
    features: int
    sq_head: int
    sq_tail: int
    sq_mask: int
    sq_array: int
    cq_head: int
    cq_tail: int
    cq_mask: int
    cqes: int


def _call(number: int, fd: int, *arguments: object) -> int:
    result: int = _syscall(ctypes.c_long(number), ctypes.c_long(fd), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Ring:
    """A ring for some operations on one file."""

    def __init__(self, entries: int, file: int, operations: Sequence[int]) -> None:
        """Make a ring that takes up to `entries` requests at once and can do these operations on this open file.

        Raises VmmError with the reference's sentence where the host's kernel is too old or forbids io_uring.
        """
        self.eventfd = _eventfd()
        """Readable when there are results."""
        try:
            self._fd, params = _setup(entries)
        except VmmError:
            os.close(self.eventfd)
            raise
        try:
            _check_features(params.features)
            _check_operations(_probe(self._fd), operations)
            self._restrict(file, operations)
            self._map(params)
        except VmmError:
            self._close_descriptors()
            raise
        self.capacity = params.cq_entries
        """How many requests may be under way, so that the results of all have a place."""
        self._entries = params.sq_entries
        self._unsubmitted = 0
        self._place = 0
        """Where the file is among the two places for files."""

    def push(self, operation: int, offset: int, host_addr: int, size: int, user_data: int) -> bool:
        """Queue a request for the next `submit`; False if the submission queue is full."""
        if self._unsubmitted == self._entries:
            return False
        tail = self._words[self._sq_tail]
        at = (tail & self._sq_mask) * _SQE.size
        file = self._place
        _SQE.pack_into(self._sqes, at, operation, _SQE_FIXED_FILE, 0, file, offset, host_addr, size, 0, user_data)
        self._words[self._sq_tail] = (tail + 1) & 0xFFFFFFFF
        self._unsubmitted += 1
        return True

    def submit(self, wait_for: int = 0) -> None:
        """Hand over what has been queued, in one system call, and wait for at least so many results."""
        while self._unsubmitted or wait_for:
            flags = _ENTER_GETEVENTS if wait_for else 0
            try:
                self._unsubmitted -= _call(_ENTER, self._fd, self._unsubmitted, wait_for, flags, None, 0)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.EBUSY):
                    continue
                raise
            wait_for = 0

    def has_results(self) -> bool:
        """Tell whether there is something to reap."""
        return self._words[self._cq_head] != self._words[self._cq_tail]

    def reap(self) -> list[tuple[int, int]]:
        """Take all results there are: the request's `user_data`, and a count of bytes or a negative error number."""
        words = self._words
        head, tail, mask = words[self._cq_head], words[self._cq_tail], self._cq_mask
        results = []
        while head != tail:
            user_data, result, _flags = _CQE.unpack_from(self._rings, self._cqes + (head & mask) * _CQE.size)
            results.append((user_data, result))
            head = (head + 1) & 0xFFFFFFFF
        words[self._cq_head] = head
        return results

    def exchange(self, file: int) -> None:
        """Work on another open file from now on; nothing may be under way. Raises IoUringFileError.

        The kernel empties a place before it looks at what comes there; so a ring has two places, and the file that it
        works on stays in its own until the other one has taken its successor.
        """
        former = self._place
        self._put(1 - former, file)
        self._place = 1 - former
        try:
            self._put(former, _NO_FILE)
        except IoUringFileError:
            pass  # nobody uses it, and the next exchange puts something else there

    def close(self) -> None:
        """Give everything back to the kernel; nothing may be under way."""
        self._words.release()
        self._rings.close()
        self._sqes.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self._fd)
        os.close(self.eventfd)

    def _restrict(self, file: int, operations: Sequence[int]) -> None:
        rules = [_RESTRICTION.pack(_RESTRICTION_SQE_OP, operation, 0) for operation in operations]
        rules.append(_RESTRICTION.pack(_RESTRICTION_SQE_FLAGS_REQUIRED, _SQE_FIXED_FILE, 0))
        rules.append(_RESTRICTION.pack(_RESTRICTION_REGISTER_OP, _REGISTER_FILES_UPDATE, 0))
        for code, argument, count, failure in (
            (_REGISTER_EVENTFD, _FD.pack(self.eventfd), 1, IoUringEventFdError),
            (_REGISTER_RESTRICTIONS, b"".join(rules), len(rules), IoUringRestrictionsError),
            (_REGISTER_FILES, _FD.pack(file) + _FD.pack(_NO_FILE), 2, IoUringFileError),
            (_REGISTER_ENABLE_RINGS, None, 0, IoUringEnableError),
        ):
            try:
                _call(_REGISTER, self._fd, code, argument, count)
            except OSError as error:
                raise failure(cause=os_text(error)) from error

    def _put(self, place: int, file: int) -> None:
        fds = ctypes.create_string_buffer(_FD.pack(file))
        try:
            _call(_REGISTER, self._fd, _REGISTER_FILES_UPDATE, _FILES_UPDATE.pack(place, ctypes.addressof(fds)), 1)
        except OSError as error:
            raise IoUringFileError(cause=os_text(error)) from error

    def _map(self, params: _Params) -> None:
        size = max(params.sq_array + 4 * params.sq_entries, params.cqes + _CQE.size * params.cq_entries)
        try:
            self._rings = mmap.mmap(self._fd, size, offset=_RINGS_AT)
            self._sqes = mmap.mmap(self._fd, _SQE.size * params.sq_entries, offset=_ENTRIES_AT)
        except OSError as error:
            raise IoUringSetupError(cause=os_text(error)) from error
        self._words = memoryview(self._rings)[: size & ~3].cast("I")
        self._sq_tail = params.sq_tail >> 2
        self._cq_head = params.cq_head >> 2
        self._cq_tail = params.cq_tail >> 2
        self._sq_mask = self._words[params.sq_mask >> 2]
        self._cq_mask = self._words[params.cq_mask >> 2]
        self._cqes = params.cqes
        first = params.sq_array >> 2
        for index in range(params.sq_entries):  # entry n is always announced in place n
            self._words[first + index] = index


def _eventfd() -> int:
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError as error:
        raise IoUringEventFdError(cause=os_text(error)) from error


def _setup(entries: int) -> tuple[int, _Params]:
    params = ctypes.create_string_buffer(_PARAMS.size)
    _PARAMS.pack_into(params, 0, 0, 0, _SETUP_R_DISABLED, *(0,) * 25)
    try:
        fd = _call(_SETUP, entries, params)
    except OSError as error:
        raise IoUringSetupError(cause=os_text(error)) from error
    fields = _PARAMS.unpack(params)
    own, sq, cq = fields[:10], fields[10:19], fields[19:]
    return fd, _Params(own[0], own[1], own[5], sq[0], sq[1], sq[2], sq[6], cq[0], cq[1], cq[2], cq[5])


def _check_features(features: int) -> None:
    """Refuse a kernel that would lose results, or keeps the queues apart; Linux 5.10.51 has all that is needed."""
    for bit, name in ((_FEAT_NODROP, "IORING_FEAT_NODROP"), (_FEAT_SINGLE_MMAP, "IORING_FEAT_SINGLE_MMAP")):
        if not features & bit:
            raise MissingIoUringFeature(feature=name)


def _probe(fd: int) -> bytes:
    answer = ctypes.create_string_buffer(_PROBE_HEADER.size + _PROBED * _PROBE_OP.size)
    try:
        _call(_REGISTER, fd, _REGISTER_PROBE, answer, _PROBED)
    except OSError as error:
        raise IoUringProbeError(cause=os_text(error)) from error
    return answer.raw


def _check_operations(probed: bytes, operations: Sequence[int]) -> None:
    for operation in operations:
        _, _, flags, _ = _PROBE_OP.unpack_from(probed, _PROBE_HEADER.size + operation * _PROBE_OP.size)
        if not flags & _OP_SUPPORTED:
            raise MissingIoUringOperation(operation=_NAMES[operation])
