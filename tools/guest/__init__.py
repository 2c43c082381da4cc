"""What boots: the kernel and the initramfs images of the project's own microVMs.

Enters: Debian packages, by name. Leaves: a bzImage, the ELF inside it, two cpio archives. Read `initramfs.py` first,
then `init.sh`, which is what runs inside. `tools/dev/guest.py` decides when to build.
"""
