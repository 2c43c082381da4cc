"""CHAPTER 9: the machines inside the machine.

Guest accesses enter as `read` and `write` with an offset; effects leave through an interrupt line, guest memory, and
a protocol with two or three verbs that each device declares for its host end. No device knows an engine, a socket or a
file, so a test can play both the guest and the host. Read `uart16550.py` first, then `virtio/`. The next chapter is
`host`, where the protocols are fulfilled.
"""
