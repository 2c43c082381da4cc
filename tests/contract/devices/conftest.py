"""Fixtures of the device contract: every test runs for every device of the table."""

from collections.abc import Iterator

import pytest

from tests.contract.devices.devices import DEVICES, Case, Factory
from tests.contract.devices.guest import Guest


@pytest.fixture(params=DEVICES)
def factory(request: pytest.FixtureRequest) -> Factory:
    return DEVICES[request.param]


@pytest.fixture
def case(factory: Factory) -> Iterator[Case]:
    case = factory(False)
    yield case
    case.close()


@pytest.fixture
def guest(case: Case) -> Iterator[Guest]:
    guest = Guest(case.device)
    yield guest
    guest.reset()
    guest.switch_off()
