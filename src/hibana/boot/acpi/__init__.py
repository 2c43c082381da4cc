"""What firmware tells the kernel about the machine: ACPI tables, hardware-reduced profile.

In: the number of CPUs and the device objects. Out: tables in guest RAM, found from the RSDP at 0xE0000.

Read `tables.py` first; `devices.py` has the objects of the DSDT, `aml.py` the language they are written in.
"""
