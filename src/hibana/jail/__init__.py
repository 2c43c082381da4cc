"""CHAPTER 12: locking the door.

A checked request and the rights of root enter; a process without rights in an almost empty room leaves, and goes on as
the VMM. Read `steps.py` first: the jail from the outside to the inside, in the order in which it closes. `arguments.py`
is what may be asked for; `chroot.py`, `cgroup.py`, `namespaces.py` and `privileges.py` are one barrier each;
`cpu_files.py` is what only aarch64 needs in the room; `identity.py` lets the process look as if it had been executed;
`linux.py` has the system calls that Python lacks. Why a Python program can go on where there are no files is told in
`cli/preload.py`.
"""
