"""Drive a firecracker process from outside, as any client would: a child, a socket, a serial console.

Used by `tools/devtool run` and `bench` and by tests/guest. Read `process.py` first, then `job.py`, which tells the
guest what to do.
"""
