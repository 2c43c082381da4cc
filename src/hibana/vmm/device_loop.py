"""The event loop as the place where devices live, on engines that let any thread write guest memory (kvm)."""

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from hibana.bus.loop import Loop

T = TypeVar("T")


class DeviceLoop:
    """Calls devices on the loop's thread (fulfils `machine.DeviceThread`), and never while a vCPU is with one."""

    def __init__(self, loop: Loop, bus_lock: Lock) -> None:
        """Hold `bus_lock`, as vCPU threads do on the bus, during each call."""
        self._loop = loop
        self._lock = bus_lock

    def post(self, task: Callable[[], None]) -> None:
        """Run a task soon. Safe from any thread, also from within a device."""
        self._loop.call(lambda: self.ask(task))

    def ask(self, question: Callable[[], T]) -> T:
        """Run a function now and give its result; only on the loop's thread, and not from within a device."""
        with self._lock:
            return question()
