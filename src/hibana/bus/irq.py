"""The way from a device to the guest's interrupt chips; nobody else touches them."""

from collections.abc import Callable


class IrqLine:
    """One edge-triggered interrupt line: a device pulses it, the engine's chips do the rest.

    On the soft engine the line belongs to the thread where devices live, like the devices themselves.
    """

    __slots__ = ("pulse",)

    def __init__(self, pulse: Callable[[], None]) -> None:
        """Make a line out of whatever raises and lowers it: `vm.line(gsi)`, or a counter in a test."""
        # An attribute and not a method: an interrupt then costs one call less.
        self.pulse = pulse
