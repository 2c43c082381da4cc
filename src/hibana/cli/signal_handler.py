"""The signal handler proper, for x86_64: 114 bytes of machine code, and why they look as they do.

Most fatal signals are not sent by anybody: they are faults in native code, and Python's own handlers are no use for
those, because they only set a flag and return to the instruction that faults again. This handler writes the kernel's
`siginfo` record into a pipe, for `signals.py` to read on the loop. Then it depends:

* A signal that somebody sent (`kill`, a hang-up, a resource limit): the handler returns, and the interrupted code goes
  on until the loop, a moment later, ends everything.
* A fault (SIGILL, SIGBUS or SIGSEGV, raised by the kernel): there is nothing to return to. The handler sleeps, and the
  loop, on its own thread, has the last word. If it says nothing for two seconds, because the fault hit the loop's own
  thread or whoever holds the interpreter lock, the handler exits with the right code, unheard.
* A system call that a seccomp filter trapped (SIGSYS, from the kernel): it did not happen, so it failed, with EPERM.
  The handler returns, the code around the call copes or raises, and the loop ends everything a moment later, even if
  the call was made on its own thread or under the interpreter lock. Whoever goes on trying meanwhile gets the same
  answer, until the pipe is full; then the handler sleeps, as after a fault, and exits if the loop says nothing.

All signals are blocked meanwhile, so nothing cuts the sleep short. A seccomp filter judges the handler, too; so it
makes no system call that Python does not make anyway.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final

_SIGACTION: Final = Struct("<Q128sixxxxQ")  # struct sigaction: handler, mask, flags, restorer
_SA_SIGINFO: Final = 4
_SA_RESTART: Final = 0x10000000
_EVERY_SIGNAL: Final = b"\xff" * 128
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

SOURCE: Final = """
        .intel_syntax noprefix

        # void handler(int signo, siginfo_t *info, void *context)
        push    rbx
        mov     rbx, rsi
        mov     r8, rdx
        mov     edi, [rip + pipe]
        mov     edx, 128
        mov     eax, 1                  # write(pipe, info, sizeof *info)
        syscall

        cmp     dword ptr [rbx + 8], 0  # info->si_code is positive if the kernel means it
        jle     return
        mov     ecx, [rbx]              # info->si_signo
        cmp     ecx, 31                 # SIGSYS: a filter trapped a system call
        jne     fault
        test    rax, rax
        js      wait                    # the pipe is full: nobody has read it yet
        mov     qword ptr [r8 + 144], -1  # context->uc_mcontext.gregs[REG_RAX] = -EPERM
        jmp     return
fault:
        mov     eax, 0x890              # the faults: bits 4, 7 and 11
        bt      eax, ecx
        jnc     return
wait:
        push    0
        push    2
        lea     rdi, [rsp + 8]          # a word that is 0
        mov     esi, 128                # FUTEX_WAIT_PRIVATE
        xor     edx, edx                # while it is 0
        mov     r10, rsp                # for 2 s and 0 ns
        mov     eax, 202                # futex
        syscall
exit:
        mov     ecx, [rbx]
        lea     rdx, [rip + exit_codes]
        movzx   edi, byte ptr [rdx + rcx]
        mov     eax, 231                # exit_group
        syscall
return:
        pop     rbx
        ret

        .org    0x80
exit_codes:
        .skip   32
pipe:
"""

CODE: Final = bytes.fromhex(
    "534889f34989d08b3d93000000ba80000000b8010000000f05837b08007e518b"
    "0b83f91f75124885c0781749c78090000000ffffffffeb38b8900800000fa3c8"
    "732e6a006a02488d7c2408be8000000031d24989e2b8ca0000000f058b0b488d"
    "151b0000000fb63c0ab8e70000000f055bc3"
)
EXIT_CODES_AT: Final = 0x80
PIPE_AT: Final = 0xA0


def handle(signals: Iterable[int], pipe: int, exit_codes: Mapping[int, int]) -> None:
    """Install the handler for some signals, in the whole process and for good. Raises OSError."""
    if os.uname().machine != "x86_64":
        raise OSError(errno.ENOEXEC, "")
    libc = ctypes.CDLL(None, use_errno=True)
    data = bytearray(CODE.ljust(PIPE_AT, b"\0") + pipe.to_bytes(4, "little"))
    for number, code in exit_codes.items():
        data[EXIT_CODES_AT + number] = code
    action = _SIGACTION.pack(_map(libc, bytes(data)), _EVERY_SIGNAL, _SA_SIGINFO | _SA_RESTART, 0)
    for number in signals:
        _check(libc.sigaction(int(number), action, None) == 0)


def _map(libc: ctypes.CDLL, program: bytes) -> int:
    """Put machine code where it can run, and leave it there: a signal may come when Python has ended."""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    at = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    _check(at != _MAP_FAILED)
    ctypes.memmove(at, program, len(program))
    _check(libc.mprotect(at, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC) == 0)
    return int(at)


def _check(succeeded: bool) -> None:
    if not succeeded:
        raise OSError(ctypes.get_errno(), "")
