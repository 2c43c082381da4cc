"""Chapter 6: putting a kernel into the guest's RAM.

In: guest RAM, an open kernel image, perhaps an open initrd, a command line. Out: RAM a kernel can start from, the
address to start at, and the registers to start with. Nothing here runs guest code or knows which engine will.

Read `system.py` first: the two steps of a boot, with calls to everything else. `kernel.py` finds out what the image
is; `elf.py`, `bzimage.py` and `unpack.py` load it; `cmdline.py` and `initrd.py` are what they say. `x86/` writes what
a boot loader would leave behind, `acpi/` what firmware would.

Next: `engine`, the CPUs that execute it.
"""
