"""CHAPTER 10: the outside world, behind the protocols that chapter 9 declares.

Descriptors, files and the terminal enter; bytes for devices leave. One file per thing of the host; `serial_output.py`
is the shortest example of how a host end fits a chip (here `devices/uart16550.py`), `serial_input.py` of how an event
of the loop travels to the thread where devices live. This is the last chapter of a running microVM; the ones after it
freeze it, thaw it and lock it up.
"""
