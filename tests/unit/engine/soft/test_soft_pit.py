"""The 8254 and port 0x61: counters against the datasheet's formulas, and what kernels do with them."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hibana.engine.soft.lapic_timer import NEVER
from hibana.engine.soft.pit import CHANNEL0, CONTROL, PIT_HZ, SYSTEM_CONTROL, Pit

CHANNEL2 = CHANNEL0 + 2
START = 5_000_000


def ns(ticks: int) -> int:
    """The first nanosecond at which so many ticks have passed."""
    return -(-ticks * 10**9 // PIT_HZ)


@dataclass
class Rig:
    """A PIT, its clock, and how often it interrupted."""

    ns: int = START
    ticks: int = 0
    changes: int = 0

    def __post_init__(self) -> None:
        self.pit = Pit(self.tick, self.changed, lambda: self.ns)

    def tick(self) -> None:
        self.ticks += 1

    def changed(self) -> None:
        self.changes += 1

    def program(self, channel: int, mode: int, count: int) -> None:
        self.pit.write(CONTROL, channel << 6 | 0x30 | mode << 1)
        self.pit.write(CHANNEL0 + channel, count & 0xFF)
        self.pit.write(CHANNEL0 + channel, count >> 8)

    def counter(self, channel: int) -> int:
        self.pit.write(CONTROL, channel << 6)
        return self.pit.read(CHANNEL0 + channel) | self.pit.read(CHANNEL0 + channel) << 8

    def out2(self) -> bool:
        return bool(self.pit.read(SYSTEM_CONTROL) & 0x20)

    def wait(self, ticks: int) -> None:
        """Go to the first moment at which so many ticks have passed since START."""
        self.ns = START + ns(ticks)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.pit.write(SYSTEM_CONTROL, 0x01)
    return rig


# --- counters ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from([0, 4]), st.integers(0, 0xFFFF), st.integers(0, 200_000))
def test_one_shot_modes_count_down_and_wrap(mode: int, count: int, ticks: int) -> None:
    rig = Rig()
    rig.program(0, mode, count)
    rig.wait(ticks)
    assert rig.counter(0) == ((count or 0x10000) - ticks) % 0x10000


@given(st.integers(2, 0x10000), st.integers(0, 200_000))
def test_the_rate_generator_reloads(count: int, ticks: int) -> None:
    rig = Rig()
    rig.program(0, 2, count & 0xFFFF)
    rig.wait(ticks)
    assert rig.counter(0) == (count - ticks % count) & 0xFFFF


@given(st.integers(1, 0x8000), st.integers(0, 200_000))
def test_the_square_wave_counts_by_two(half: int, ticks: int) -> None:
    rig = Rig()
    count = 2 * half
    rig.program(0, 3, count & 0xFFFF)
    rig.wait(ticks)
    assert rig.counter(0) == (count - 2 * (ticks % half)) & 0xFFFF


@given(st.integers(2, 0xFFFF), st.integers(0, 6), st.integers(-2, 2))
def test_the_output_follows_the_mode(count: int, halves: int, around: int) -> None:
    """Look near the ends and middles of periods, where it changes."""
    ticks = max(0, (halves * count + 1) // 2 + around)
    expected = {
        0: ticks >= count,
        2: ticks % count != count - 1,
        3: ticks % count < (count + 1) // 2,
        4: ticks != count,
    }
    for mode, out in expected.items():
        rig = Rig()
        rig.pit.write(SYSTEM_CONTROL, 0x01)
        rig.program(2, mode, count)
        rig.wait(ticks)
        assert rig.out2() is out, mode


def test_reading_without_latch_alternates_bytes_of_the_live_count(rig: Rig) -> None:
    rig.program(0, 0, 0x1234)
    assert rig.pit.read(CHANNEL0) == 0x34
    assert rig.pit.read(CHANNEL0) == 0x12


@pytest.mark.parametrize(("access", "count", "read"), [(1, 0x0056, 0x56), (2, 0x5600, 0x56)])
def test_single_byte_access(rig: Rig, access: int, count: int, read: int) -> None:
    rig.pit.write(CONTROL, access << 4)
    rig.pit.write(CHANNEL0, 0x56)
    assert rig.pit.read(CHANNEL0) == read
    assert rig.pit.read(CHANNEL0) == read
    assert rig.pit.due == START + ns(count)


def test_a_latched_count_stands_still_until_read(rig: Rig) -> None:
    rig.program(0, 0, 0x8000)
    rig.wait(16)
    rig.pit.write(CONTROL, 0x00)
    rig.wait(5000)
    rig.pit.write(CONTROL, 0x00)
    assert rig.pit.read(CHANNEL0) == 0xF0
    rig.wait(9000)
    assert rig.pit.read(CHANNEL0) == 0x7F
    assert rig.counter(0) == 0x8000 - 9000


def test_a_control_word_forgets_what_was_latched(rig: Rig) -> None:
    rig.program(0, 0, 0x1234)
    rig.pit.write(CONTROL, 0xC0 | 0x02)
    rig.program(0, 0, 0x5678)
    assert rig.pit.read(CHANNEL0) == 0x78


def test_read_back_latches_status_and_count_of_several_channels(rig: Rig) -> None:
    rig.program(0, 2, 0x1000)
    rig.program(2, 3, 0x2000)
    rig.pit.write(CONTROL, 0xC0 | 0x02 | 0x08)
    rig.wait(100)
    assert rig.pit.read(CHANNEL0) == 0x80 | 0x30 | 2 << 1
    assert rig.pit.read(CHANNEL0) == 0x00
    assert rig.pit.read(CHANNEL0) == 0x10
    assert rig.pit.read(CHANNEL2) == 0x80 | 0x30 | 3 << 1
    assert rig.pit.read(CHANNEL2) == 0x00
    assert rig.pit.read(CHANNEL2) == 0x20
    assert rig.counter(0) == 0x1000 - 100


def test_read_back_can_leave_out_either(rig: Rig) -> None:
    rig.program(0, 0, 0x1234)
    rig.pit.write(CONTROL, 0xE0 | 0x02)  # status only
    assert rig.pit.read(CHANNEL0) == 0x30
    rig.pit.write(CONTROL, 0xD0 | 0x02)  # count only
    assert rig.pit.read(CHANNEL0) == 0x34


def test_modes_6_and_7_are_2_and_3_and_bcd_is_remembered(rig: Rig) -> None:
    for word, status in ((0x3D, 0x30 | 2 << 1 | 1), (0x3E, 0x30 | 3 << 1)):
        rig.pit.write(CONTROL, word)
        rig.pit.write(CONTROL, 0xE0 | 0x02)
        assert rig.pit.read(CHANNEL0) & 0x3F == status


# --- interrupts -------------------------------------------------------------------------------------------------------


@given(st.sampled_from([2, 3]), st.integers(200, 0x10000), st.lists(st.integers(0, 10**10), max_size=10))
def test_a_periodic_channel_never_drifts(mode: int, count: int, steps: list[int]) -> None:
    rig = Rig()
    rig.program(0, mode, count & 0xFFFF)
    for step in steps:
        rig.ns += step
        due, before = rig.pit.due, rig.ticks
        rig.pit.expire(rig.ns)
        assert rig.ticks - before == (due <= rig.ns)
        period = (rig.ns - START) * PIT_HZ // 10**9 // count + 1
        assert rig.pit.due == START + ns(period * count)


@pytest.mark.parametrize(("mode", "ticks"), [(0, 1000), (4, 1001)])
def test_a_one_shot_interrupts_once(rig: Rig, mode: int, ticks: int) -> None:
    rig.program(0, mode, 1000)
    assert rig.pit.due == START + ns(ticks)
    rig.ns = rig.pit.due - 1
    rig.pit.expire(rig.ns)
    assert rig.ticks == 0
    rig.ns += 1
    rig.pit.expire(rig.ns)
    assert rig.ticks == 1
    assert rig.pit.due == NEVER


@pytest.mark.parametrize("mode", [1, 5])
def test_a_gated_mode_of_channel_0_never_starts(rig: Rig, mode: int) -> None:
    rig.program(0, mode, 1000)
    assert rig.pit.due == NEVER


def test_a_control_word_stops_the_interrupts(rig: Rig) -> None:
    rig.program(0, 2, 1000)
    rig.pit.write(CONTROL, 0x30)
    assert rig.pit.due == NEVER


def test_a_very_fast_channel_leaves_the_guest_time(rig: Rig) -> None:
    rig.program(0, 2, 7)
    assert rig.pit.due - START >= 100_000
    assert rig.pit.due == START + ns(126)


def test_a_count_shorter_than_the_way_to_the_chip_still_interrupts() -> None:
    """The clock moves between any two looks at it."""
    rig = Rig()

    def look() -> int:
        rig.ns += 5_000
        return rig.ns

    rig.pit = Pit(rig.tick, rig.changed, look)
    rig.program(0, 0, 1)
    rig.pit.expire(look())
    assert rig.ticks == 1


def test_an_idle_chip_asks_for_nothing(rig: Rig) -> None:
    assert rig.pit.due == NEVER
    rig.program(2, 2, 1000)
    assert rig.pit.due == NEVER
    assert rig.changes == 0


# --- channel 2 and port 0x61 ------------------------------------------------------------------------------------------


def test_linux_measures_time_with_channel_2(rig: Rig) -> None:
    """`quick_pit_calibrate`: the high byte falls every 256 ticks."""
    rig.pit.write(SYSTEM_CONTROL, rig.pit.read(SYSTEM_CONTROL) & ~0x02 | 0x01)
    rig.pit.write(CONTROL, 0xB0)
    rig.pit.write(CHANNEL2, 0xFF)
    rig.pit.write(CHANNEL2, 0xFF)
    for byte in range(0xFF, 0xF0, -1):
        rig.wait((0xFF - byte) * 256 + 1)
        rig.pit.read(CHANNEL2)
        assert rig.pit.read(CHANNEL2) == byte
    assert not rig.out2()
    rig.wait(0xFFFF)
    assert rig.out2()


def test_a_low_gate_holds_the_count_and_a_high_one_goes_on(rig: Rig) -> None:
    rig.program(2, 0, 1000)
    rig.wait(400)
    rig.pit.write(SYSTEM_CONTROL, 0x00)
    rig.wait(10_000)
    assert rig.counter(2) == 600
    assert not rig.out2()
    rig.pit.write(SYSTEM_CONTROL, 0x01)
    rig.wait(10_601)
    assert rig.out2()


def test_a_count_loaded_behind_a_closed_gate_waits(rig: Rig) -> None:
    rig.pit.write(SYSTEM_CONTROL, 0x00)
    rig.program(2, 0, 1000)
    rig.wait(5000)
    assert rig.counter(2) == 1000
    rig.pit.write(SYSTEM_CONTROL, 0x01)
    assert rig.counter(2) == 1000


def test_a_rising_gate_restarts_periodic_modes_and_triggers_one_shots(rig: Rig) -> None:
    rig.program(2, 2, 1000)
    rig.wait(300)
    rig.pit.write(SYSTEM_CONTROL, 0x00)
    assert rig.out2()
    rig.pit.write(SYSTEM_CONTROL, 0x01)
    assert rig.counter(2) == 1000
    rig.program(2, 1, 1000)
    assert rig.out2(), "not triggered yet"
    rig.pit.write(SYSTEM_CONTROL, 0x00)
    assert rig.out2()
    rig.pit.write(SYSTEM_CONTROL, 0x01)
    assert not rig.out2()
    rig.wait(1301)
    assert rig.out2()


def test_a_gate_without_a_count_starts_nothing(rig: Rig) -> None:
    rig.pit.write(CONTROL, 0xB0)
    rig.pit.write(SYSTEM_CONTROL, 0x00)
    rig.pit.write(SYSTEM_CONTROL, 0x01)
    rig.wait(200_000)
    assert not rig.out2()


def test_port_61_reads_back_gate_and_speaker_and_the_refresh_bit_moves(rig: Rig) -> None:
    rig.pit.write(SYSTEM_CONTROL, 0xFF)
    reads = [rig.pit.read(SYSTEM_CONTROL) for _ in range(4)]
    assert {value & 0x03 for value in reads} == {0x03}
    assert {value & 0xCC for value in reads} == {0}
    assert len({value & 0x10 for value in reads[:2]}) == 2


def test_the_control_port_cannot_be_read(rig: Rig) -> None:
    assert rig.pit.read(CONTROL) == 0


# --- state ------------------------------------------------------------------------------------------------------------

port_writes = st.lists(
    st.tuples(
        st.sampled_from([CHANNEL0, CHANNEL0 + 1, CHANNEL2, CONTROL, SYSTEM_CONTROL]),
        st.integers(0, 255),
        st.integers(0, 10**8),
    ),
    max_size=30,
)


@given(port_writes, st.integers(0, 10**9))
def test_a_saved_pit_goes_on_elsewhere(story: list[tuple[int, int, int]], later: int) -> None:
    rig, copy = Rig(), Rig(ns=99 * 10**9)
    for port, value, step in story:
        rig.pit.write(port, value)
        rig.ns += step
    rig.pit.expire(rig.ns)
    copy.pit.load(rig.pit.save(rig.ns), rig.ns)
    rig.ns += later
    copy.ns += later

    one_tick = ns(1)
    if rig.pit.due == NEVER:
        assert copy.pit.due == NEVER
    else:
        assert abs((copy.pit.due - copy.ns) - (rig.pit.due - rig.ns)) <= one_tick
    original, restored = rig.pit.save(rig.ns), copy.pit.save(copy.ns)
    for was, is_now in zip(original.channels, restored.channels, strict=True):
        assert (was.count_load_time == 0) == (is_now.count_load_time == 0)
        if was.count_load_time:
            assert abs((rig.ns - was.count_load_time) - (copy.ns - is_now.count_load_time)) <= one_tick
        was.count_load_time = is_now.count_load_time = 0
    assert restored == original


def test_the_unprogrammed_state_of_kvm_stays_quiet(rig: Rig) -> None:
    state = rig.pit.save(START)
    for channel in state.channels:
        channel.mode = 0xFF
        channel.count_load_time = 1234
    rig.pit.load(state, START)
    assert rig.pit.due == NEVER


def test_a_saved_state_is_a_copy(rig: Rig) -> None:
    state = rig.pit.save(START)
    rig.program(0, 2, 77)
    assert state.channels[0].count == 0x10000


@given(port_writes)
def test_no_access_is_fatal(story: list[tuple[int, int, int]]) -> None:
    rig = Rig()
    for port, value, step in story:
        rig.pit.write(port, value)
        rig.ns += step
        rig.pit.expire(rig.ns)
        assert 0 <= rig.pit.read(port) <= 0xFF
