"""The 8254 timer and port 0x61 (Intel 8254 datasheet).

A channel does not count: it remembers when it started, and derives counter, output pin and next interrupt from the
ticks since then, so nothing drifts and nothing runs while nobody looks. Channel 0 raises GSI 0. Channel 2 is gated by
port 0x61 and its output read back there, which is how kernels measure time before they have a clock.

Two simplifications: a count takes effect at once, also in the modes that would finish the old one first; and binary
counting is used even where the guest asked for BCD.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from hibana.engine.soft.lapic_timer import NEVER
from hibana.engine.state import PitChannelState, PitState

CHANNEL0: Final = 0x40
CONTROL: Final = 0x43
SYSTEM_CONTROL: Final = 0x61
PORTS: Final = (*range(CHANNEL0, CONTROL + 1), SYSTEM_CONTROL)

PIT_HZ: Final = 1_193_182

# Modes.
TERMINAL_COUNT: Final = 0
ONE_SHOT: Final = 1
RATE_GENERATOR: Final = 2
SQUARE_WAVE: Final = 3
SOFTWARE_STROBE: Final = 4
HARDWARE_STROBE: Final = 5

_TRIGGERED: Final = (ONE_SHOT, HARDWARE_STROBE)  # started by the gate
_PERIODIC: Final = (RATE_GENERATOR, SQUARE_WAVE)

# Which byte of the count the next access means; the first three are also the access field of the control word.
_LOW: Final = 1
_HIGH: Final = 2
_LOW_THEN_HIGH: Final = 3
_HIGH_AFTER_LOW: Final = 4

_READ_BACK: Final = 3  # control word, channel field
_KEEP_COUNT: Final = 0x20  # read-back: do not latch the count
_KEEP_STATUS: Final = 0x10  # read-back: do not latch the status

# Port 0x61.
_GATE2: Final = 0x01
_SPEAKER: Final = 0x02
_REFRESH: Final = 0x10
_OUT2: Final = 0x20

_FULL: Final = 0x10000
_SHORTEST_PERIOD: Final = 120
"""Ticks (0.1 ms): a faster periodic timer skips interrupts, in whole periods, to leave the guest time to run."""


def _ticks(ns: int) -> int:
    return ns * PIT_HZ // 10**9


def _ns(ticks: int) -> int:
    """Give the shortest time in which so many ticks have passed."""
    return -(-ticks * 10**9 // PIT_HZ)


class Channel:
    """One of the three counters; its registers are the record that snapshots store.

    `regs.count_load_time` is when counting started, 0 while it has not: after the control word, and in the modes
    that wait for the gate.
    """

    __slots__ = ("_held", "_now", "regs")

    def __init__(self, gate: int, now: Callable[[], int]) -> None:
        self.regs = PitChannelState(
            gate=gate, rw_mode=_LOW_THEN_HIGH, read_state=_LOW_THEN_HIGH, write_state=_LOW_THEN_HIGH
        )
        self._now = now
        self._held = 0
        """Ticks at which counting is held, -1 while it goes on."""

    # --- the counter --------------------------------------------------------------------------------------------------

    def elapsed(self, now: int) -> int:
        """Count the ticks since the start."""
        return self._held if self._held >= 0 else _ticks(now - self.regs.count_load_time)

    def counter(self) -> int:
        """Compute the counting element."""
        count, ticks = self.regs.count, self.elapsed(self._now())
        if self.regs.mode == RATE_GENERATOR:
            return count - ticks % count & 0xFFFF
        if self.regs.mode == SQUARE_WAVE:
            return count - 2 * ticks % count & 0xFFFF
        return count - ticks & 0xFFFF

    def out(self) -> bool:
        """Compute the output pin."""
        mode, count, ticks = self.regs.mode, self.regs.count, self.elapsed(self._now())
        if mode in (TERMINAL_COUNT, ONE_SHOT):
            return ticks >= count
        if mode == RATE_GENERATOR:
            return ticks % count != count - 1
        if mode == SQUARE_WAVE:
            return ticks % count < (count + 1) // 2
        return ticks != count

    def next_rise(self, ticks: int) -> int:
        """Give the time of the output's first rising edge after a count of ticks; NEVER when there is none."""
        mode, count = self.regs.mode, self.regs.count
        if self._held >= 0:
            return NEVER
        if mode in _PERIODIC:
            period = count * -(-_SHORTEST_PERIOD // count)
            rise = (ticks // period + 1) * period
        else:
            rise = count + (mode in (SOFTWARE_STROBE, HARDWARE_STROBE))
        return self.regs.count_load_time + _ns(rise) if rise > ticks else NEVER

    def set_gate(self, gate: int) -> None:
        """Drive the gate input: a rising edge starts or resumes counting, a low level holds it."""
        regs = self.regs
        if gate == regs.gate:
            return
        regs.gate = gate
        if regs.mode in _TRIGGERED:
            if gate:
                self._start(0)
        elif regs.count_load_time:
            if not gate:
                self._held = 0 if regs.mode in _PERIODIC else self.elapsed(self._now())
            else:
                self._start(self._held)

    # --- the registers ------------------------------------------------------------------------------------------------

    def control(self, word: int) -> None:
        """Take a control word: a new mode, or the order to latch the count."""
        access = word >> 4 & 3
        if access == 0:
            self.latch_count()
            return
        regs = self.regs
        mode = word >> 1 & 7
        regs.mode = mode if mode <= HARDWARE_STROBE else mode & 3  # bit 2 means nothing in modes 2 and 3
        regs.bcd = word & 1
        regs.rw_mode = regs.read_state = regs.write_state = access
        regs.count_latched = regs.status_latched = 0
        self._wait()

    def latch_count(self) -> None:
        """Freeze the count for reading, unless one is waiting to be read."""
        regs = self.regs
        if not regs.count_latched:
            regs.latched_count = self.counter()
            regs.count_latched = regs.rw_mode

    def latch_status(self) -> None:
        """Freeze the status for reading, unless one is waiting to be read."""
        regs = self.regs
        if not regs.status_latched:
            regs.status = self.out() << 7 | regs.rw_mode << 4 | regs.mode << 1 | regs.bcd
            regs.status_latched = 1

    def read(self) -> int:
        """Read the next byte of the status, the latched count or the live count."""
        regs = self.regs
        if regs.status_latched:
            regs.status_latched = 0
            return regs.status
        if regs.count_latched:
            if regs.count_latched == _LOW_THEN_HIGH:
                regs.count_latched = _HIGH
                return regs.latched_count & 0xFF
            high = regs.count_latched == _HIGH
            regs.count_latched = 0
            return regs.latched_count >> 8 * high & 0xFF
        state = regs.read_state
        regs.read_state = self._following(state)
        return self.counter() >> 8 * (state in (_HIGH, _HIGH_AFTER_LOW)) & 0xFF

    def write(self, byte: int) -> bool:
        """Write the next byte of the count; tell whether that completed it."""
        regs = self.regs
        state = regs.write_state
        regs.write_state = self._following(state)
        if state == _LOW_THEN_HIGH:
            regs.write_latch = byte
            return False
        if state == _HIGH_AFTER_LOW:
            self._load(regs.write_latch | byte << 8)
        else:
            self._load(byte << 8 * (state == _HIGH))
        return True

    # --- state --------------------------------------------------------------------------------------------------------

    def save(self, now: int) -> PitChannelState:
        """Export the registers; a held channel is saved as one that started so many ticks ago."""
        regs = replace(self.regs)
        if regs.count_load_time and self._held >= 0:
            regs.count_load_time = now - _ns(self._held)
        return regs

    def load(self, saved: PitChannelState, age_ns: int) -> None:
        """Replace the registers; `age_ns` is how long the channel had been counting when it was saved."""
        self.regs = replace(saved)
        self.regs.count = saved.count & 0x1FFFF or _FULL
        unprogrammed = saved.mode > HARDWARE_STROBE  # as KVM marks it
        if unprogrammed:
            self.regs.mode = TERMINAL_COUNT
        if unprogrammed or not saved.count_load_time:
            self._wait()
            return
        self._start(_ticks(age_ns))
        if not saved.gate and saved.mode not in _TRIGGERED:
            self._held = _ticks(age_ns)

    def _load(self, count: int) -> None:
        self.regs.count = count or _FULL
        if self.regs.mode in _TRIGGERED:
            self._wait()
            return
        self._start(0)
        if not self.regs.gate:
            self._held = 0

    def _start(self, ticks: int) -> None:
        self.regs.count_load_time = self._now() - _ns(ticks)
        self._held = -1

    def _wait(self) -> None:
        """Do not count; the output is where the mode wants it before it starts: low in mode 0, high in all others."""
        self.regs.count_load_time = 0
        self._held = self.regs.count + 1 if self.regs.mode in _TRIGGERED else 0

    @staticmethod
    def _following(state: int) -> int:
        """Alternate between low and high byte where the access mode says both."""
        return {_LOW_THEN_HIGH: _HIGH_AFTER_LOW, _HIGH_AFTER_LOW: _LOW_THEN_HIGH}.get(state, state)


class Pit:
    """Three channels behind their ports."""

    __slots__ = ("_channels", "_now", "_refresh", "_speaker", "_tick", "_timer_changed", "due")

    def __init__(self, tick: Callable[[], None], timer_changed: Callable[[], None], now: Callable[[], int]) -> None:
        self._tick = tick
        self._timer_changed = timer_changed
        self._now = now
        self._channels = [Channel(1, now), Channel(1, now), Channel(0, now)]
        self._speaker = 0
        self._refresh = 0
        self.due = NEVER
        """When channel 0 interrupts, in nanoseconds of `now`."""

    def read(self, port: int) -> int:
        """Read a counter or port 0x61; the control word cannot be read."""
        if port == SYSTEM_CONTROL:
            return self._read_system_control()
        return self._channels[port - CHANNEL0].read() if port != CONTROL else 0

    def write(self, port: int, value: int) -> None:
        """Write a counter, the control word or port 0x61."""
        if port == SYSTEM_CONTROL:
            self._speaker = value & _SPEAKER
            self._channels[2].set_gate(value & _GATE2)
        elif port != CONTROL:
            if self._channels[port - CHANNEL0].write(value) and port == CHANNEL0:
                self._aim(0)
        elif value >> 6 == _READ_BACK:
            self._read_back(value)
        else:
            self._channels[value >> 6].control(value)
            if value >> 6 == 0:
                self._aim(0)

    def expire(self, now: int) -> None:
        """Raise GSI 0 if channel 0 is due."""
        if self.due > now:
            return
        self._aim(self._channels[0].elapsed(now))
        self._tick()

    def save(self, now: int) -> PitState:
        """Export the registers as of a moment."""
        return PitState(channels=[channel.save(now) for channel in self._channels], speaker=self._speaker)

    def load(self, state: PitState, saved_at: int) -> None:
        """Replace the registers; `saved_at` is what the clock of `count_load_time` showed when they were saved."""
        ages_ns = [max(0, saved_at - saved.count_load_time) for saved in state.channels]
        for channel, saved, age_ns in zip(self._channels, state.channels, ages_ns, strict=True):
            channel.load(saved, age_ns)
        self._speaker = state.speaker & _SPEAKER
        self._aim(_ticks(ages_ns[0]))

    def _aim(self, ticks: int) -> None:
        """Publish when channel 0 interrupts next after a count of ticks, which may be the past."""
        due = self._channels[0].next_rise(ticks)
        if due != self.due:
            self.due = due
            self._timer_changed()

    def _read_back(self, word: int) -> None:
        for index, channel in enumerate(self._channels):
            if word & 2 << index:
                if not word & _KEEP_COUNT:
                    channel.latch_count()
                if not word & _KEEP_STATUS:
                    channel.latch_status()

    def _read_system_control(self) -> int:
        """Read port 0x61; the refresh bit alternates, which is all that old delay loops wait for."""
        self._refresh ^= _REFRESH
        channel = self._channels[2]
        return channel.regs.gate | self._speaker | self._refresh | channel.out() << 5
