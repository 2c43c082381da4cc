"""What an x86 boot loader leaves in memory and registers: one structure a file.

In: the entry point, the initrd's place, the memory map. Out: bytes below 1 MiB and a `VcpuState`. Two protocols share
these files: Linux's 64-bit boot protocol (zero page, page tables) and PVH (start info, 32-bit flat mode).

Read `registers.py` first, then the structures its registers point to.
"""
