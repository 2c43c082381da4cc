"""Stand-ins for the world around a part of Hibana, for our tests and for those of people who build on it.

A device under test gets its guest from the test itself, which reads and writes registers, and the rest from here:
an interrupt line that counts, a clock that waits for nobody, a sink that remembers. A virtio device gets a driver,
who owns the guest's half of its queues: `virtio.py`. An engine under test gets a bus that writes down what the guest
did. None of them needs root, KVM or a network. Start with `fakes.py`.
"""
