"""CHAPTER 13: asking the host how it is.

A host enters; findings leave, each with the command that mends it. Read `finding.py` first: what a check asks and what
it answers. Then one file a subject: `engines.py`, `kernel.py`, `resources.py`, `production.py`, and `checks.py`, the
table of all checks in the order in which they are printed. `cli/hibana.py` prints them.
"""
