"""The machine code around the library, and its labels.

Written by tools/assemble_thunks.py out of thunks.S; do not edit.
"""

from typing import Final

CODE: Final = bytes.fromhex(
    "c605f90f000001488b05fa0f000066c700ffffc3833de50f000000750331c0c3"
    "803dd90f0000007415c6471501488b87a8810000c6806d0500000131c0c35348"
    "8d9f508a0000803db50f0000007421f783b4000000040000007515c605a00f00"
    "0000838bb400000004be02000000eb2d803d8a0f0000007439f7838800000000"
    "020000742df783b0000000080000007521ff15a10f000085c0781789c64889df"
    "ba01000000ff159d0f0000b8010000005bc331c05bc3803d470f000000740e48"
    "8b87a8810000c6806d05000001ff25ad0f0000488bbfb80100000fb605240f00"
    "00c6051d0f00000009875c9f0000ff25840f000089b750f7ffffc78708150000"
    "00000000c7870c150000000000004863d24803978000000048899710150000c6"
    "05df0e0000014881ef508a0000ff250d0f0000f787b0000000008000000f84fb"
    "000000f78750020000010000000f84eb000000534889fb4863f64803b3800000"
    "0048897308ff15ed0e000025fffffeff48894358488b8bf812000048f7d14821"
    "c189ca81e22af3ffff83ca024889938800000089ca81e2d50800004889939800"
    "0000c783a800000001000000c1e90983e102f7d9ffc1898bac0000000fb793dc"
    "12000081e2fcff00008993d000000048c783d800000000000000c783e0000000"
    "ffffffffc783e4000000009baf0083c2088993e800000048c783f00000000000"
    "0000c783f8000000ffffffffc783fc0000000093cf008b93b000000081e2fcfe"
    "fdff81ca308000008993b0000000488b93e8120000488993800000005bc3be06"
    "000000ff25170e00008b97c012000081e2fcff00000f84a20000004881a78800"
    "0000fffdfcff8997d000000048c787d800000000000000c787e0000000ffffff"
    "ff83c2088997e800000048c787f000000000000000c787f8000000ffffffffc7"
    "87fc0000000093cf008b97b000000081e2bcfefdff81ca30800000be009baf00"
    "488b87c8120000488b8fd0120000f7c200400000750f81f240800000be009bcf"
    "0089c089c98997b000000089b7e40000004889472048898f80000000c3be0d00"
    "000031d2488b0c24ff255a0d0000534883ec104889fb4889e7be0800000031d2"
    "ff15620d00004883f808751148c7839800000001000000488b0424eb0d48c783"
    "980000000000000031c04883c4105bc3483b35c10c00007308488b05c00c0000"
    "c348b800000000010000004889f24829c2483b15b00c00007308488b05af0c00"
    "00c3ff25c80c000031f64883caffff25dc0c0000"
)

CELLS_AT: Final = 4096
"""The cells begin on the page after the code."""

CELLS_SIZE: Final = 144

ENTRIES: Final = {
    "poke": 0,
    "cpu_exec_interrupt": 20,
    "cpu_exec_exit": 182,
    "deliver_exception": 211,
    "helper_raise_interrupt": 244,
    "helper_syscall": 307,
    "helper_sysenter": 585,
    "helper_rdrand": 782,
    "memory_mapping": 848,
    "tlb_reset_dirty_by_vaddr": 904,
}
"""Thunk → offset in CODE. A thunk with the name of a library function replaces it."""

CELLS: Final = {
    "wanted": 0,
    "wanted_exit": 0,
    "wanted_interrupt": 1,
    "wanted_nmi": 2,
    "others_runnable": 4,
    "software_interrupt": 5,
    "kick_word": 8,
    "nowhere": 16,
    "low_ram_size": 24,
    "low_ram_region": 32,
    "high_ram_size": 40,
    "high_ram_region": 48,
    "pick": 56,
    "cpu_loop_exit": 64,
    "do_interrupt_x86_hardirq": 72,
    "find_memory_mapping": 80,
    "helper_read_eflags": 88,
    "raise_exception": 96,
    "raise_exception_err_ra": 104,
    "tlb_reset_dirty": 112,
    "x86_cpu_do_interrupt": 120,
    "x86_cpu_exec_exit": 128,
    "getrandom": 136,
}
"""Cell → offset from CELLS_AT."""

FUNCTIONS: Final = (
    "cpu_loop_exit",
    "do_interrupt_x86_hardirq",
    "find_memory_mapping",
    "helper_read_eflags",
    "raise_exception",
    "raise_exception_err_ra",
    "tlb_reset_dirty",
    "x86_cpu_do_interrupt",
    "x86_cpu_exec_exit",
)
"""Cells that hold the address of the library's function of the same name."""

LIBC_FUNCTIONS: Final = (
    "getrandom",
)
"""The same for the C library."""
