"""Where things lie inside unicorn's structures: the only place where an offset into the library is written down.

Unicorn is QEMU 5.0.1 behind a small interface, and the interface leaves out most of what a machine needs. The engine
reaches the rest in memory. The numbers are those of the `unicorn==2.1.4` wheel for x86-64 Linux, whose library carries
`BUILD_ID`. They were found by writing random values through the public interface and looking where they turn up, and by
comparing pointers with symbol addresses. `probe.py` proves them again each time an engine starts; a unit test searches
for them from nothing.

The machine code gets the same numbers as symbols (`UC_CPU`, `ENV_EFLAGS`, ...) when it is assembled.
"""

from typing import Final

BUILD_ID: Final = "44285d3e80527122e9e361928189385906ec813e"
"""GNU build-id of libunicorn.so.2 in the wheel."""

VERSION: Final = "2.1.4"


class UC:
    """`struct uc_struct`: one unicorn instance; its address is the handle that `uc_open` returns."""

    stop_interrupt: Final = 224
    """Function that decides which exceptions end emulation instead of reaching the guest."""
    memory_mapping: Final = 288
    """Function from a guest-physical address to its memory region."""
    cpu: Final = 440
    tcg_ctx: Final = 768
    stop_request: Final = 1389
    """u8: `uc_emu_start` returns as soon as the CPU loop ends."""
    invalid_addr: Final = 1416
    """u64: the guest-physical address that nothing is mapped at."""
    first_tb: Final = 2033
    """u8: set by `uc_emu_start`; the neighbour by which the next one is recognised."""
    no_exit_request: Final = 2034
    """u8: check the kick word at the start of a block only, not after every load and store."""
    init_done: Final = 2035
    """u8: the machine exists."""
    nested_level: Final = 14840
    """i32: how often `uc_emu_start` has been entered and not left."""


class CPU:
    """`CPUState`: what all of QEMU's processors have in common; `uc.cpu` points to it."""

    stopped: Final = 18
    """u8: set by a triple fault."""
    exit_request: Final = 21
    """u8: leave the CPU loop."""
    interrupt_request: Final = 28
    """u32: bit 1 = an external interrupt waits."""
    env_ptr: Final = 296
    icount_decr_ptr: Final = 304
    """Pointer to the word that every block looks at; a negative value ends the block."""
    tb_jmp_cache: Final = 312
    """TranslationBlock *[4096]: the next block by virtual address; emptied with the TLB."""
    halted: Final = 33176
    """u32: HLT was executed."""
    exception_index: Final = 33184
    """i32: the exception being delivered, -1 = none."""
    uc: Final = 33192
    cc: Final = 33200
    """Pointer to the CPUClass."""
    env: Final = 35408
    """The CPUX86State itself, after 2192 bytes of software TLB."""
    icount_decr: Final = 35392
    """That word."""
    kick: Final = 2
    """Relative to `*icount_decr_ptr`: the u16 that makes the word negative."""


class TLB:
    """`CPUTLB`: the software TLB, relative to the CPUX86State; one table for each of three kinds of access."""

    MODES: Final = 3
    """MMU indices: 0 = kernel with SMAP, 1 = user, 2 = kernel."""
    mask: Final = -64
    """u64: number of entries - 1, times the size of an entry."""
    table: Final = -56
    FAST_SIZE: Final = 16
    """From the mask and table of one kind of access to those of the next."""
    n_used_entries: Final = -2128
    vtable: Final = -2112
    """Eight entries that were pushed out of the table."""
    VICTIMS: Final = 8
    DESC_SIZE: Final = 696
    """From the used entries and victims of one kind of access to those of the next."""


class TLBE:
    """`CPUTLBEntry`: a virtual page, and what to add to an address in it for the host's address."""

    addr_read: Final = 0
    addr_write: Final = 8
    addr_code: Final = 16
    """The page for an access of that kind, with flags in the low bits; -1 = not allowed."""
    addend: Final = 32
    SIZE: Final = 64
    NOTDIRTY: Final = 0x400
    """Flag: ask before a store whether the page holds translated code."""


class TB:
    """`TranslationBlock`: translated code, and what it was translated from."""

    pc: Final = 0
    cs_base: Final = 8
    flags: Final = 16
    """u32: hflags, and the bits of RFLAGS that translation depends on."""
    cflags: Final = 24
    """u32: how it was translated; bit 18 = no longer valid."""
    code: Final = 32
    """Pointer to the translated code."""
    page_addr: Final = 72
    """u64[2]: the pages it came from, as offsets into RAM; -1 = no second one."""


class TCG:
    """`TCGContext`: what is known while a block is being translated; `uc.tcg_ctx` points to it."""

    epilogue: Final = 152
    """Pointer to the code that leaves translated code for the loop around it."""
    first_op: Final = 29576
    """Pointer to the first operation emitted."""
    last_op: Final = 29584
    """Pointer to the link of the last one; to `first_op` when there is none."""
    cpu_env: Final = 39152
    """u64: from the context to the operand that stands for the CPUX86State."""
    cpu_cc_op: Final = 39312
    """u64: the same for `ENV.cc_op`."""


class TCGOP:
    """`TCGOp`: one operation of the intermediate language; the first byte says which."""

    link: Final = 8
    """Pointer to the next one; operations are linked by the addresses of their links."""
    previous: Final = 16
    """Pointer to the link of the one before."""
    arguments: Final = 24
    """u64 each."""


class CC:
    """`CPUClass`: the functions that QEMU calls through pointers."""

    cpu_exec_exit: Final = 136
    cpu_exec_interrupt: Final = 144


class REGION:
    """`MemoryRegion` and, behind `ops`, `MemoryRegionOps`: a range of guest-physical addresses."""

    ops: Final = 16
    ops_largest_access: Final = 68
    """u32: wider accesses are split; 0 = 4 bytes."""
    ops_callback: Final = -32
    """The function that `uc_mmio_map` was given for reading: `ops` lies in a record of unicorn's own."""


class FLOAT:
    """`float_status`: how a floating-point unit rounds, one byte each."""

    flush_to_zero: Final = 4
    flush_inputs_to_zero: Final = 5


class SEGMENT:
    """`SegmentCache`: a segment register, or GDTR and IDTR with selector and flags unused."""

    selector: Final = 0
    base: Final = 8
    limit: Final = 16
    flags: Final = 20
    """The descriptor's second word: type 8-11, S 12, DPL 13-14, P 15, AVL 20, L 21, D/B 22, G 23."""
    SIZE: Final = 24


class ENV:
    """`CPUX86State`: the registers of one x86 CPU."""

    regs: Final = 0
    """u64[16]: RAX RCX RDX RBX RSP RBP RSI RDI R8 ... R15."""
    eip: Final = 128
    eflags: Final = 136
    """u64: RFLAGS; while a block runs, the arithmetic flags and DF are in the next three fields instead."""
    cc_src: Final = 152
    cc_op: Final = 168
    """u32: how to compute the arithmetic flags; 1 = they are `cc_src` itself."""
    df: Final = 172
    """i32: 1 = strings go up, -1 = down."""
    hflags: Final = 176
    """u32: what translation depends on, derived from the other registers."""
    hflags2: Final = 180
    """u32: bit 0 = interrupts reach the CPU at all, bit 2 = NMIs wait for IRET."""
    segs: Final = 184
    """SegmentCache[6]: ES CS SS DS FS GS."""
    ldt: Final = 328
    tr: Final = 352
    gdt: Final = 376
    idt: Final = 400
    cr: Final = 424
    """u64[5]: CR0 ... CR4."""
    efer: Final = 592
    fpstt: Final = 604
    """u32: top of the x87 stack."""
    fpus: Final = 608
    """u16: status word without the top of stack."""
    fpuc: Final = 610
    """u16: control word."""
    fptags: Final = 612
    """u8[8]: 1 = the physical register is empty."""
    fpregs: Final = 624
    """u80[8], 16 bytes each, physical order."""
    fpop: Final = 752
    fpip: Final = 760
    fpdp: Final = 768
    fp_status: Final = 776
    sse_status: Final = 808
    """`float_status` of the two floating-point units."""
    mxcsr: Final = 816
    xmm_regs: Final = 824
    """64 bytes each, of which XMM is the first 16."""
    sysenter_cs: Final = 4800
    """u32."""
    sysenter_esp: Final = 4808
    sysenter_eip: Final = 4816
    star: Final = 4824
    lstar: Final = 4840
    cstar: Final = 4848
    fmask: Final = 4856
    kernelgsbase: Final = 4864
    tsc_adjust: Final = 4880
    """u64: IA32_TSC_ADJUST; the library never looks at it."""
    tsc_aux: Final = 4896
    xcr0: Final = 4904
    misc_enable: Final = 4920
    pat: Final = 5280
    error_code: Final = 5384
    exception_is_int: Final = 5388
    exception_next_eip: Final = 5392
    dr: Final = 5400
    """u64[8]."""
    old_exception: Final = 5496
    """i32: what a double fault would be made of, -1 = nothing."""
    tsc_offset: Final = 5512
    """u64: what RDTSC adds to the host's counter."""
    features: Final = 5632
    """u64 each: 0 = CPUID 1.EDX, 1 = 1.ECX, 2 = 7.EBX, ...; the translator obeys them."""
    mtrr_fixed: Final = 6320
    mtrr_deftype: Final = 6408
    mtrr_var: Final = 6416
    uc: Final = 7000
    SIZE: Final = 7008
