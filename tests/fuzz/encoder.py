"""Machine code for x86-64, straight into bytes: thousands of programs a minute leave no time for an assembler.

There is no table of instructions here, only their grammar (SDM vol. 2, "Instruction Format"): prefixes, REX, opcode,
ModRM, SIB, displacement, immediate. Who calls knows the opcode. Four shapes cover everything, by where the operands
are: `rr` both in registers, `rm` one in memory, and the same with a digit of the opcode in place of a register,
`dr` and `dm`. Sizes are in bytes. An immediate is appended by the caller.
"""

from typing import Final, NamedTuple

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

# Conditions, as in Jcc, SETcc and CMOVcc; an odd one is the negation of the one before.
O, NO, B, AE, E, NE, BE, A, S, NS, P, NP, L, GE, LE, G = range(16)  # noqa: E741 - their names in the Intel manual

_REX: Final = 0x40
_OPERAND_SIZE: Final = b"\x66"
_LOCK: Final = b"\xf0"
_WORDS: Final = {1: 1, 2: 2, 4: 4, 8: 4}
"""Operand size → size of a full immediate."""


class Absolute(NamedTuple):
    """A 64-bit address inside code: known when it is known where the code goes."""

    at: int
    target: int
    """What it points to, from the beginning of the code."""
    region: int
    """The region of the address space through which it points there."""


class Code:
    """Machine code that can be moved, with labels."""

    __slots__ = ("_absolutes", "_jumps", "_labels", "out")

    def __init__(self) -> None:
        self.out = bytearray()
        self._labels: list[int] = []
        self._jumps: list[tuple[int, int, int, int]] = []  # position, label, size, address counted from
        self._absolutes: list[tuple[int, int, int]] = []

    # --- the grammar --------------------------------------------------------------------------------------------------

    def rr(self, opcode: bytes, reg: int, rm: int, size: int = 4, prefix: bytes = b"", narrow: bool = False) -> None:
        """Emit an instruction on two registers; `narrow`: `rm` is a byte whatever the size is."""
        force = (size == 1 and (4 <= reg < 8 or 4 <= rm < 8)) or (narrow and 4 <= rm < 8)
        self._head(opcode, (reg >> 3) << 2 | rm >> 3, size, prefix, force)
        self.out.append(0xC0 | (reg & 7) << 3 | rm & 7)

    def dr(self, opcode: bytes, digit: int, rm: int, size: int = 4, prefix: bytes = b"") -> None:
        """Emit an instruction on one register."""
        self._head(opcode, rm >> 3, size, prefix, size == 1 and 4 <= rm < 8)
        self.out.append(0xC0 | digit << 3 | rm & 7)

    def rm(
        self, opcode: bytes, reg: int, base: int, disp: int = 0, size: int = 4, prefix: bytes = b"",
        index: int = RSP, scale: int = 0,
    ) -> None:  # fmt: skip
        """Emit an instruction on a register and [base + index << scale + disp]; RSP is no index."""
        rex = (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3
        self._head(opcode, rex, size, prefix, size == 1 and 4 <= reg < 8)
        self._memory(reg & 7, base, disp, index, scale)

    def dm(
        self, opcode: bytes, digit: int, base: int, disp: int = 0, size: int = 4, prefix: bytes = b""
    ) -> None:  # fmt: skip
        """Emit an instruction on [base + disp]."""
        self._head(opcode, base >> 3, size, prefix, False)
        self._memory(digit, base, disp, RSP, 0)

    def ra(self, opcode: bytes, reg: int, addr: int, size: int = 4) -> None:
        """Emit an instruction on a register and a fixed address in the highest 2 GiB."""
        self._head(opcode, (reg >> 3) << 2, size, b"", size == 1 and 4 <= reg < 8)
        self.out += bytes(((reg & 7) << 3 | 4, 0x25))
        self.out += (addr & 0xFFFFFFFF).to_bytes(4, "little")

    def da(self, opcode: bytes, digit: int, addr: int, size: int = 4) -> None:
        """Emit an instruction on a fixed address in the highest 2 GiB."""
        self.ra(opcode, digit, addr, 4 if size == 1 else size)

    def rip(self, opcode: bytes, reg: int, label: int, size: int = 4, prefix: bytes = b"", trailing: int = 0) -> None:
        """Emit an instruction on a register and a label; `trailing` bytes of immediate will follow."""
        self._head(opcode, (reg >> 3) << 2, size, prefix, size == 1 and 4 <= reg < 8)
        self.out.append((reg & 7) << 3 | 5)
        self._relative(label, 4, trailing)

    def imm(self, value: int, size: int) -> None:
        """Append an immediate as wide as an operand of `size`, 4 bytes for 8."""
        width = _WORDS[size]
        self.out += (value & (1 << 8 * width) - 1).to_bytes(width, "little")

    def imm8(self, value: int) -> None:
        """Append a byte."""
        self.out.append(value & 0xFF)

    def raw(self, code: bytes) -> None:
        """Append bytes."""
        self.out += code

    def _head(self, opcode: bytes, rex: int, size: int, prefix: bytes, force: bool) -> None:
        out = self.out
        if size == 2:
            out += _OPERAND_SIZE
        out += prefix
        if size == 8:
            rex |= 8
        if rex or force:
            out.append(_REX | rex)
        out += opcode

    def _memory(self, reg: int, base: int, disp: int, index: int, scale: int) -> None:
        out = self.out
        plain = index == RSP and base & 7 != RSP
        short = -128 <= disp < 128
        mode = 0 if disp == 0 and base & 7 != RBP else 0x40 if short else 0x80
        if plain:
            out.append(mode | reg << 3 | base & 7)
        else:
            out.append(mode | reg << 3 | 4)
            out.append(scale << 6 | (index & 7) << 3 | base & 7)
        if mode == 0x40:
            out.append(disp & 0xFF)
        elif mode:
            out += (disp & 0xFFFFFFFF).to_bytes(4, "little")

    # --- labels -------------------------------------------------------------------------------------------------------

    def label(self) -> int:
        """Make a label, to be bound later."""
        self._labels.append(-1)
        return len(self._labels) - 1

    def bind(self, label: int) -> None:
        """Put a label here."""
        self._labels[label] = len(self.out)

    def here(self) -> int:
        """Make a label here."""
        self._labels.append(len(self.out))
        return len(self._labels) - 1

    def where(self, label: int) -> int:
        """Tell how far a bound label is from the beginning."""
        return self._labels[label]

    def _relative(self, label: int, size: int, trailing: int = 0) -> None:
        at = len(self.out)
        self._jumps.append((at, label, size, at + size + trailing))
        self.out += bytes(size)

    def jmp(self, label: int) -> None:
        """Jump, near."""
        self.out.append(0xE9)
        self._relative(label, 4)

    def jcc(self, condition: int, label: int) -> None:
        """Jump on a condition, near."""
        self.out += bytes((0x0F, 0x80 | condition))
        self._relative(label, 4)

    def short(self, opcode: int, label: int) -> None:
        """Jump, short: EB, 7x, LOOPcc (E0-E2) or JRCXZ (E3)."""
        self.out.append(opcode)
        self._relative(label, 1)

    def call(self, label: int) -> None:
        """Call, near."""
        self.out.append(0xE8)
        self._relative(label, 4)

    def absolute(self, reg: int, label: int, region: int) -> None:
        """Load the address that a label has in a region."""
        self.out += bytes((0x48 | reg >> 3, 0xB8 | reg & 7))
        self._absolutes.append((len(self.out), label, region))
        self.out += bytes(8)

    def finish(self) -> tuple[bytes, tuple[Absolute, ...]]:
        """Resolve the labels."""
        out = self.out
        for at, label, size, origin in self._jumps:
            distance = self._labels[label] - origin
            out[at : at + size] = distance.to_bytes(size, "little", signed=True)
        return bytes(out), tuple(Absolute(at, self._labels[label], region) for at, label, region in self._absolutes)

    # --- instructions that everybody needs ----------------------------------------------------------------------------

    def load(self, reg: int, value: int) -> None:
        """MOV r, imm, in the shortest form for a 64-bit value."""
        value &= 0xFFFFFFFFFFFFFFFF
        if value < 1 << 32:
            if reg >= 8:
                self.out.append(0x41)
            self.out.append(0xB8 | reg & 7)
            self.out += value.to_bytes(4, "little")
        elif value >= (1 << 64) - (1 << 31):
            self.dr(b"\xc7", 0, reg, 8)
            self.imm(value, 8)
        else:
            self.out += bytes((0x48 | reg >> 3, 0xB8 | reg & 7))
            self.out += value.to_bytes(8, "little")

    def alu(self, operation: int, reg: int, rm: int, size: int = 4) -> None:
        """ADD, OR, ADC, SBB, AND, SUB, XOR, CMP (0-7): `rm` op= `reg`."""
        self.rr(bytes((operation << 3 | (size != 1),)), reg, rm, size)

    def alui(self, operation: int, rm: int, value: int, size: int = 4) -> None:
        """The same with an immediate of 32 bits or less."""
        if size == 1:
            self.dr(b"\x80", operation, rm, 1)
            self.imm8(value)
        elif -128 <= value < 128:
            self.dr(b"\x83", operation, rm, size)
            self.imm8(value)
        else:
            self.dr(b"\x81", operation, rm, size)
            self.imm(value, size)

    def mov(self, reg: int, rm: int, size: int = 8) -> None:
        """`reg` = `rm`."""
        self.rr(b"\x8a" if size == 1 else b"\x8b", reg, rm, size)

    def fetch(self, reg: int, base: int, disp: int = 0, size: int = 8) -> None:
        """`reg` = [base + disp]."""
        self.rm(b"\x8a" if size == 1 else b"\x8b", reg, base, disp, size)

    def store(self, reg: int, base: int, disp: int = 0, size: int = 8, prefix: bytes = b"") -> None:
        """[base + disp] = `reg`."""
        self.rm(b"\x88" if size == 1 else b"\x89", reg, base, disp, size, prefix)

    def lea(self, reg: int, base: int, disp: int = 0) -> None:
        """`reg` = base + disp."""
        self.rm(b"\x8d", reg, base, disp, 8)

    def lea_label(self, reg: int, label: int) -> None:
        """`reg` = the address of a label in the region that executes."""
        self.rip(b"\x8d", reg, label, 8)

    def push(self, reg: int) -> None:
        """PUSH r."""
        if reg >= 8:
            self.out.append(0x41)
        self.out.append(0x50 | reg & 7)

    def pop(self, reg: int) -> None:
        """POP r."""
        if reg >= 8:
            self.out.append(0x41)
        self.out.append(0x58 | reg & 7)

    def jump_to(self, reg: int) -> None:
        """JMP r."""
        self.dr(b"\xff", 4, reg)

    def call_to(self, reg: int) -> None:
        """CALL r."""
        self.dr(b"\xff", 2, reg)

    def lock(self) -> None:
        """Append a LOCK prefix."""
        self.out += _LOCK

    def out_eax(self, port: int) -> None:
        """OUT imm8, EAX."""
        self.out += bytes((0xE7, port))
