"""Whatever a driver does, the device neither breaks nor writes where it was not asked to, and a reset helps.

HIBANA_NIGHTLY=1 tries 50 000 scripts a device instead of 2 000.
"""

import os
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hibana.observe import log
from tests.contract.devices.devices import DEVICES
from tests.contract.devices.guest import Guest
from tests.contract.devices.hostile import Madness

SCRIPTS: Final = 50_000 if os.environ.get("HIBANA_NIGHTLY") else 2_000
_HOURS: Final = 3600.0


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """A mad driver fills logs, at the rate that logs are limited to."""
    log.configure(level=log.OFF)
    yield
    log.configure(level=log.INFO)


@pytest.mark.parametrize("name", DEVICES)
@given(slow=st.booleans(), script=st.binary(max_size=150))
@settings(max_examples=SCRIPTS, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_mad_driver_harms_nobody_but_itself(name: str, slow: bool, script: bytes) -> None:
    case = DEVICES[name](slow)
    guest = Guest(case.device)
    Madness(case, guest, script).run()

    assert guest.stray_writes() == []
    assert guest.untold_writes() == []

    guest.reset()
    assert guest.status == 0
    case.timers.advance(_HOURS)
    case.host_event()
    guest.start()
    for queue, offers in case.requests:
        head = guest.offer(queue, offers)
        guest.knock(queue)
        case.host_event()
        case.timers.advance(_HOURS)
        case.host_event()
        assert guest.completions(queue) == [head], "a well-behaved driver is served"

    guest.reset()
    guest.switch_off()
    case.close()
