"""CHAPTER 7b: the soft engine. How a CPU is put back together from unicorn.

Where there is no KVM, guest code is translated to host code by unicorn, which is QEMU's translator with the machine
around it removed: no exception reaches the guest, SYSCALL does nothing, there is no APIC, no second CPU and no clock.
All of that can be put back from outside, because the library exports QEMU's internal functions and calls them through
tables that can be rewritten. Nothing is compiled on the user's machine, and not a byte of the library is changed.

What enters: guest RAM, a number of vCPUs, and a bus for every access that is neither RAM nor one of our chips. What
leaves: an `engine.interface.Vm` with one runner, that is one host thread, on which all vCPUs take turns and to which
the devices belong (there is no `bus_lock`).

Read in this order:

    engine.py          create a VM; the table of contents
    runner.py          the loop: which vCPU runs, for how long, what ends it
    processor.py       the one CPU of the library: its registers, memory and switches
    vcpu.py            a vCPU while it does not run; cpu_state.py its registers in KVM's terms
    exits.py           the instructions that leave translated code: I/O, CPUID (cpuid.py), MSRs (msr.py), CR8
    interrupts.py      the fabric between lines and vCPUs; behind it ioapic.py, pic.py, lapic.py, pit.py, rtc.py

and below that, the part that holds on to one exact build of the library:

    thunks.S           what must be machine code, and why; thunks.py is its assembled form (assembled.py)
    floats.S           floating point as the CPU below computes it; vectors.S: vectors of integers, and strings
    machine_code.py    the thunks in memory; relocations.py and slots.py say where the library is led to them
    offsets.py         the only place with an offset into unicorn's structures; probe.py proves them at start-up
    library.py         finding, recognising and loading the library
    alarm.py           the signal by which time and other threads reach the guest
    selfcheck.py       a tiny guest that proves the result before the real one is loaded

What makes it fast is a chapter of its own, fast/, and none of it is needed: HIBANA_SOFT=plain leaves it out.

Four rules keep this correct. Translated code must not check for kicks between the load and the store of one
instruction (`no_exit_request`). What may longjmp is never called with a Python frame in between. Whoever writes guest
memory from the host tells the translator (`GuestMemory.on_write`), on the runner's thread. And there is one machine in
a process at a time, because its addresses are in the cells that the thunks use.

Next: chapter 8, bus/, how a guest access finds a device.
"""
