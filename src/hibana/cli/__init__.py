"""CHAPTER 1: what was typed.

A command line enters; a running microVM, or an exit code with a sentence, leaves. Read `firecracker.py` first: its
`main` is the table of contents of the VMM. `flags.py` is the table of its flags, `args.py` the grammar that all
programs share, `exits.py` and `signals.py` are the ways in which a process ends. `jailer.py` locks the VMM up first.
The next chapter is `api`.
"""
