"""CHAPTER 12: locking the door.

A policy in JSON enters, programs that the kernel runs before each system call leave. Read `policy.py` first, the
language in which users and we say what a thread may do, then `compiler.py`, which makes a search tree of it in the
instructions of `bpf.py`. `filters.py` is what the VMM needs of all this: compiled filters, ours or the user's; and
`install.py` puts them on a thread, for good. Our own policies are in `policies/`, one for each architecture and engine;
docs/security.md says what they are for.
"""
