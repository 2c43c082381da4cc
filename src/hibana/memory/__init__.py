"""Chapter 5: the guest's RAM.

In: a size in bytes. Out: windows on the bytes behind a guest-physical address, checked, without copies.

Read `layout.py` first: the map of physical addresses, the same on every engine. `guest.py` is the RAM itself and the
only place where a guest address is checked; `huge.py` spares it small pages. `allocator.py` hands out what the map
leaves free: device addresses, interrupt lines, room for firmware tables.

Next: `boot`, which puts a kernel into this memory.
"""
