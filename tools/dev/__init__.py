"""Everything a developer types: `tools/devtool COMMAND`.

Enters: a fresh Debian 12. Leaves: build/ (programs, guests, reports) and an exit code. One file a command; read
`__main__.py` first, then `run.py`.
"""
