"""The MMIO transport: a page of registers in front of any virtio device (virtio 1.2 §4.2).

A driver walks the status register up, one bit after the other: ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK. In
between it accepts features, 32 bits at a time, and says where each queue lies. DRIVER_OK checks all of that and
activates the device; from then on the driver writes QueueNotify, and the device pulses its line. Zero resets.

What a driver does out of turn is ignored with a line in the log, as in the reference. What breaks a queue sets
DEVICE_NEEDS_RESET: this file is the one place where a GuestFault ends. One thing differs from the reference:
ConfigGeneration does count, because a capacity of 64 bits is read in two halves.

All calls come on the thread where devices live.
"""

from collections.abc import Callable
from typing import Final

from hibana.bus.irq import IrqLine
from hibana.devices.virtio.device import EVENT_IDX, VirtioDevice
from hibana.devices.virtio.queue import Queue
from hibana.errors import GuestFault, VmmError
from hibana.memory.guest import GuestMemory
from hibana.observe import log
from hibana.observe.metrics_groups import METRICS

_COUNTERS: Final = METRICS.interrupts

# Registers (§4.2.2), all of 32 bits.
MAGIC_VALUE: Final = 0x000
VERSION: Final = 0x004
DEVICE_ID: Final = 0x008
VENDOR_ID: Final = 0x00C
DEVICE_FEATURES: Final = 0x010
DEVICE_FEATURES_SEL: Final = 0x014
DRIVER_FEATURES: Final = 0x020
DRIVER_FEATURES_SEL: Final = 0x024
QUEUE_SEL: Final = 0x030
QUEUE_NUM_MAX: Final = 0x034
QUEUE_NUM: Final = 0x038
QUEUE_READY: Final = 0x044
QUEUE_NOTIFY: Final = 0x050
INTERRUPT_STATUS: Final = 0x060
INTERRUPT_ACK: Final = 0x064
STATUS: Final = 0x070
QUEUE_DESC_LOW: Final = 0x080
QUEUE_DESC_HIGH: Final = 0x084
QUEUE_DRIVER_LOW: Final = 0x090
QUEUE_DRIVER_HIGH: Final = 0x094
QUEUE_DEVICE_LOW: Final = 0x0A0
QUEUE_DEVICE_HIGH: Final = 0x0A4
CONFIG_GENERATION: Final = 0x0FC
CONFIG: Final = 0x100
"""The device's configuration structure, accessed in any size."""

MAGIC: Final = 0x74726976  # "virt"
MODERN: Final = 2

# Status (§2.1).
ACKNOWLEDGE: Final = 1
DRIVER: Final = 2
DRIVER_OK: Final = 4
FEATURES_OK: Final = 8
DEVICE_NEEDS_RESET: Final = 64
FAILED: Final = 128

# InterruptStatus.
USED_BUFFER: Final = 1
CONFIGURATION_CHANGE: Final = 2

_READY_TO_SET_UP: Final = ACKNOWLEDGE | DRIVER | FEATURES_OK
_RUNNING: Final = _READY_TO_SET_UP | DRIVER_OK
_STEPS: Final = {(0, ACKNOWLEDGE), (ACKNOWLEDGE, 3), (3, _READY_TO_SET_UP), (_READY_TO_SET_UP, _RUNNING)}
"""The status a driver may write, given the present one."""

_U32: Final = 0xFFFFFFFF


class MmioTransport:
    """The registers of one device; for the device, its way to the driver (fulfils `device.Interrupt`)."""

    def __init__(self, device: VirtioDevice, memory: GuestMemory, irq: IrqLine) -> None:
        """Put a device behind registers in their reset state."""
        self._device = device
        self._memory = memory
        self._irq = irq
        self._queues = [Queue(size) for size in device.queue_sizes]
        self._config_generation = 0
        self._clear()
        self._readers: Final[dict[int, Callable[[], int]]] = {
            MAGIC_VALUE: lambda: MAGIC,
            VERSION: lambda: MODERN,
            DEVICE_ID: lambda: device.type_id,
            VENDOR_ID: lambda: 0,
            DEVICE_FEATURES: self._read_device_features,
            QUEUE_NUM_MAX: self._read_queue_num_max,
            QUEUE_READY: self._read_queue_ready,
            INTERRUPT_STATUS: lambda: self._interrupt_status,
            STATUS: lambda: self._status,
            CONFIG_GENERATION: lambda: self._config_generation,
        }
        self._writers: Final[dict[int, Callable[[int], None]]] = {
            DEVICE_FEATURES_SEL: self._write_device_features_sel,
            DRIVER_FEATURES: self._write_driver_features,
            DRIVER_FEATURES_SEL: self._write_driver_features_sel,
            QUEUE_SEL: self._write_queue_sel,
            QUEUE_NUM: self._write_queue_num,
            QUEUE_READY: self._write_queue_ready,
            QUEUE_NOTIFY: self._write_queue_notify,
            INTERRUPT_ACK: self._write_interrupt_ack,
            STATUS: self._write_status,
            QUEUE_DESC_LOW: self._low_half("descriptors_addr"),
            QUEUE_DESC_HIGH: self._high_half("descriptors_addr"),
            QUEUE_DRIVER_LOW: self._low_half("avail_addr"),
            QUEUE_DRIVER_HIGH: self._high_half("avail_addr"),
            QUEUE_DEVICE_LOW: self._low_half("used_addr"),
            QUEUE_DEVICE_HIGH: self._high_half("used_addr"),
        }

    def _clear(self) -> None:
        self._device_features_sel = 0
        self._driver_features_sel = 0
        self._acked = 0
        self._queue_sel = 0
        self._interrupt_status = 0
        self._status = 0
        for queue in self._queues:
            queue.reset()

    # --- what the bus asks --------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Answer a read of a register or of the configuration structure."""
        if offset >= CONFIG:
            return self._device.read_config(offset - CONFIG, size)
        reader = self._readers.get(offset)
        if reader is None or size != 4:
            log.warn_limited(f"{self._device.id}: cannot read {size} bytes at virtio-mmio register {offset:#x}")
            return 0
        return reader()

    def write(self, offset: int, size: int, value: int) -> None:
        """Carry out a write to a register or to the configuration structure."""
        if offset >= CONFIG:
            self._write_config(offset - CONFIG, size, value)
            return
        writer = self._writers.get(offset)
        if writer is None or size != 4:
            log.warn_limited(f"{self._device.id}: cannot write {size} bytes at virtio-mmio register {offset:#x}")
            return
        writer(value & _U32)

    # --- what the device asks -----------------------------------------------------------------------------------------

    def used(self, queue: int) -> None:
        """Tell the driver that there are answers; on this transport it looks into all queues."""
        _COUNTERS.triggers += 1
        self._interrupt_status |= USED_BUFFER
        self._irq.pulse()

    def config(self) -> None:
        """Tell the driver that the configuration has changed."""
        self._config_generation = (self._config_generation + 1) & _U32
        self._interrupt_config()

    def needs_reset(self, fault: GuestFault) -> None:
        """Give up on the driver: set DEVICE_NEEDS_RESET and tell it, say why in the log (§2.1.1)."""
        self._device.count_event_failure()
        self._give_up(fault)

    def _give_up(self, why: Exception) -> None:
        self._device.active = False
        self._status |= DEVICE_NEEDS_RESET
        log.error_limited(f"{self._device.id}: the device needs a reset: {why}")
        self._interrupt_config()

    def _interrupt_config(self) -> None:
        _COUNTERS.triggers += 1
        self._interrupt_status |= CONFIGURATION_CHANGE
        self._irq.pulse()

    # --- features -----------------------------------------------------------------------------------------------------

    def _read_device_features(self) -> int:
        return self._device.features >> 32 * self._device_features_sel & _U32 if self._device_features_sel < 2 else 0

    def _write_device_features_sel(self, value: int) -> None:
        self._device_features_sel = value

    def _write_driver_features_sel(self, value: int) -> None:
        self._driver_features_sel = value

    def _write_driver_features(self, value: int) -> None:
        if not self._status & DRIVER or self._status & (FEATURES_OK | FAILED | DEVICE_NEEDS_RESET):
            self._ignore("DriverFeatures")
            return
        accepted = value << 32 * self._driver_features_sel if self._driver_features_sel < 2 else 0
        if accepted & ~self._device.features:
            log.warn_limited(f"{self._device.id}: the driver accepts features that were not offered: {accepted:#x}")
        self._acked |= accepted & self._device.features

    # --- queues -------------------------------------------------------------------------------------------------------

    def _selected_queue(self) -> Queue | None:
        return self._queues[self._queue_sel] if self._queue_sel < len(self._queues) else None

    def _queue_to_set_up(self, register: str) -> Queue | None:
        """Give the selected queue, if there is one and the driver may change it now."""
        queue = self._selected_queue()
        if queue is None or not self._status & FEATURES_OK or self._status & (DRIVER_OK | FAILED):
            self._ignore(register)
            return None
        return queue

    def _write_queue_sel(self, value: int) -> None:
        self._queue_sel = value

    def _read_queue_num_max(self) -> int:
        queue = self._selected_queue()
        return queue.max_size if queue else 0

    def _write_queue_num(self, value: int) -> None:
        if queue := self._queue_to_set_up("QueueNum"):
            queue.size = value & 0xFFFF

    def _read_queue_ready(self) -> int:
        queue = self._selected_queue()
        return int(queue.ready) if queue else 0

    def _write_queue_ready(self, value: int) -> None:
        if queue := self._queue_to_set_up("QueueReady"):
            queue.ready = value == 1

    def _low_half(self, field: str) -> Callable[[int], None]:
        def write(value: int) -> None:
            if queue := self._queue_to_set_up("queue address"):
                setattr(queue, field, getattr(queue, field) & ~_U32 | value)

        return write

    def _high_half(self, field: str) -> Callable[[int], None]:
        def write(value: int) -> None:
            if queue := self._queue_to_set_up("queue address"):
                setattr(queue, field, getattr(queue, field) & _U32 | value << 32)

        return write

    def _write_queue_notify(self, value: int) -> None:
        device = self._device
        if device.active and value < len(self._queues):
            try:
                device.notify(value)
            except GuestFault as fault:
                self.needs_reset(fault)
        else:
            self._ignore("QueueNotify")

    # --- interrupts, status, configuration ----------------------------------------------------------------------------

    def _write_interrupt_ack(self, value: int) -> None:
        if self._status & DRIVER_OK:
            self._interrupt_status &= ~value

    def _write_status(self, value: int) -> None:
        if value & FAILED:
            self._status |= FAILED
        elif value == 0:
            self._reset()
        elif (self._status, value) in _STEPS:
            self._status = value
            if value == _RUNNING:
                self._activate()
        else:
            self._ignore(f"status {value:#x} after {self._status:#x}")

    def _reset(self) -> None:
        if self._status == 0:
            return
        if self._device.reset():
            self._clear()
        else:
            self._status |= FAILED

    def _activate(self) -> None:
        try:
            for queue in self._queues:
                queue.activate(self._memory, bool(self._acked & EVENT_IDX))
            self._device.activate(self._memory, self._queues, self, self._acked)
        except (GuestFault, VmmError) as error:
            self._device.count_activation_failure()
            self._give_up(error)
            return
        # A driver may have made chains available before; it owes no notification for those.
        for index in range(len(self._queues)):
            if self._device.active:
                self._write_queue_notify(index)

    def _write_config(self, offset: int, size: int, value: int) -> None:
        if self._status & DRIVER and not self._status & (FAILED | DEVICE_NEEDS_RESET):
            self._device.write_config(offset, size, value)
        else:
            self._ignore("configuration")

    def _ignore(self, what: str) -> None:
        log.warn_limited(f"{self._device.id}: the driver may not write this now: {what} (status {self._status:#x})")
