"""libunicorn.so.2: found without importing the `unicorn` package, recognised by its build-id, loaded once.

The package's own Python binding costs 30 ms to import and nothing here needs it. The library exports QEMU's internal
functions too, with the suffix `_x86_64`; `Library.address` finds both kinds.
"""

import ctypes
import os
import struct
import sys
from typing import Any, Final

from hibana.engine.soft.offsets import BUILD_ID, VERSION

ARCH_X86: Final = 4
MODE_64: Final = 8
PROT_ALL: Final = 7

HOOK_INTR: Final = 1
HOOK_INSN: Final = 2
INSN_CPUID: Final = 113
INSN_IN: Final = 218
INSN_OUT: Final = 500

_LIBRARY: Final = os.path.join("unicorn", "lib", "libunicorn.so.2")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_NOTE: Final = struct.Struct("<III")
_PT_NOTE: Final = 4
_NT_GNU_BUILD_ID: Final = 3

PORT_IN: Final = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint64)
PORT_OUT: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64
)
MMIO_READ: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64)
MMIO_WRITE: Final = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_uint64
)
CPUID: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64)
PICK: Final = ctypes.CFUNCTYPE(ctypes.c_int)
READ_TPR: Final = ctypes.CFUNCTYPE(ctypes.c_uint32)
WRITE_TPR: Final = ctypes.CFUNCTYPE(None, ctypes.c_uint32)
ACCESS_MSR: Final = ctypes.CFUNCTYPE(ctypes.c_uint32)


class _DlInfo(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = (
        ("fname", ctypes.c_char_p),
        ("fbase", ctypes.c_void_p),
        ("sname", ctypes.c_char_p),
        ("saddr", ctypes.c_void_p),
    )


class Library:
    """The loaded library: public functions with their types, and the address of any function by name."""

    def __init__(self, path: str) -> None:
        self._library = _preloaded[0][1] if _preloaded else ctypes.CDLL(path)
        pointer, size, i32, u32, u64 = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64
        )  # fmt: skip
        self.uc_open = self.function("uc_open", i32, i32, i32, pointer)
        self.uc_close = self.function("uc_close", i32, u64)
        self.uc_reg_read = self.function("uc_reg_read", i32, u64, i32, pointer)
        self.uc_reg_write = self.function("uc_reg_write", i32, u64, i32, pointer)
        self.uc_mem_map_ptr = self.function("uc_mem_map_ptr", i32, u64, u64, size, u32, u64)
        self.uc_mmio_map = self.function("uc_mmio_map", i32, u64, u64, size, u64, u64, u64, u64)
        self.uc_emu_start = self.function("uc_emu_start", i32, u64, u64, u64, u64, size)
        self.uc_emu_stop = self.function("uc_emu_stop", i32, u64)
        self.uc_context_size = self.function("uc_context_size", size, u64)
        # Its last parameters are variadic: the instruction to hook. Passing it always is harmless.
        self.uc_hook_add = self.function("uc_hook_add", i32, u64, pointer, i32, u64, u64, u64, u64, i32)
        self.base = self._load_address()

    def address(self, name: str) -> int:
        """Find a function, internal or public, in memory."""
        try:
            function = self._library[f"{name}_x86_64"]
        except AttributeError:
            function = self._library[name]
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """Make a function callable; the interpreter lock is released during the call."""
        return ctypes.CFUNCTYPE(result, *arguments)(self.address(name))

    def error(self, code: int) -> str:
        """Render a `uc_err`."""
        text = self.function("uc_strerror", ctypes.c_char_p, ctypes.c_int)(code)
        return str(text, "ascii")

    def _load_address(self) -> int:
        found = _DlInfo()
        if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(self.address("uc_open")), ctypes.byref(found)):
            raise OSError("dladdr does not know uc_open")
        return int(found.fbase)


_preloaded: list[tuple[str, ctypes.CDLL]] = []


def preload() -> None:
    """Load the library, if it can be used, for a time when its file cannot be found any more."""
    path = find()
    if path is not None and not missing():
        _preloaded.append((path, ctypes.CDLL(path)))


def find() -> str | None:
    """Look for the library in the packages this interpreter would import."""
    if _preloaded:
        return _preloaded[0][0]
    for directory in sys.path:
        path = os.path.join(directory, _LIBRARY)
        if os.path.exists(path):
            return path
    return None


def missing() -> str | None:
    """Say why the library cannot be used here; None when it can."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return "the soft engine runs on x86-64 Linux only."
    if _preloaded:
        return None
    path = find()
    if path is None:
        return f"the unicorn package is not installed; `pip install unicorn=={VERSION}` brings it."
    found = build_id(path)
    if found != BUILD_ID:
        return (
            f"{path} has build-id {found or 'none'}, but the soft engine is made for the unicorn {VERSION} wheel of "
            f"PyPI, build-id {BUILD_ID}; `pip install --only-binary :all: unicorn=={VERSION}` brings it."
        )
    return None


def build_id(path: str) -> str:
    """Read the GNU build-id note of an ELF file; empty when there is none."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return ""
        at, count = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
        file.seek(at)
        table = file.read(_PROGRAM_HEADER.size * count)
        for kind, _, offset, _, _, size, _, _ in _PROGRAM_HEADER.iter_unpack(table):
            if kind == _PT_NOTE:
                file.seek(offset)
                note = file.read(size)
                name_size, id_size, note_kind = _NOTE.unpack_from(note)
                if note_kind == _NT_GNU_BUILD_ID:
                    start = _NOTE.size + (name_size + 3 & -4)
                    return note[start : start + id_size].hex()
    return ""
