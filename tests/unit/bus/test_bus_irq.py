"""A line does one thing."""

from hibana.bus.irq import IrqLine


def test_a_pulse_reaches_what_the_line_was_made_of() -> None:
    pulsed: list[int] = []
    line = IrqLine(lambda: pulsed.append(4))
    line.pulse()
    line.pulse()
    assert pulsed == [4, 4]
