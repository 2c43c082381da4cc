"""CHAPTER 9b: virtio, the devices that know they are in a virtual machine.

A driver in the guest and a device share queues in guest memory; registers are for setting up and for knocking. Read
`queue.py` first: how buffers travel. `device.py` says what a device is, whatever its transport; `mmio.py` is the
transport and knows no device. Then any device, `rng.py` being the smallest. Next: `host`, where frames and sectors
come from.
"""
