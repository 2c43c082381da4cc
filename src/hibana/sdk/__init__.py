"""For people: driving a microVM from Python.

A path to an API socket enters, typed answers leave. The records are those of `hibana.config`; any server that speaks
the same API will do. Read `machine.py`.
"""
