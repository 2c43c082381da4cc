"""CHAPTER 8: how a guest access finds a device, and how a device finds the guest and the outside world.

An address and a size enter from an engine; a call of one device with an offset leaves. Read `address.py` first: what a
device is and where it lives. `guest_bus.py` shows the two address spaces to the engine, `irq.py` is the way back,
`loop.py` is the one place where the VMM waits for the host, and `home.py` carries its news to the thread where devices
live. The next chapter is `devices`.
"""
