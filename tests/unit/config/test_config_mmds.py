"""Where the metadata service answers, and to whom."""

import pytest

from hibana.config import mmds
from hibana.config.mmds import MmdsConfig, dotted_quad
from hibana.errors import (
    MmdsAddressNotLinkLocal,
    NoMmdsInterface,
    UnknownMmdsInterface,
)


@pytest.mark.parametrize("address", ["169.254.1.0", "169.254.254.255", "169.254.169.254"])
def test_link_local_addresses(address: str) -> None:
    mmds.check(MmdsConfig(network_interfaces=["a"], ipv4_address=address), ["a"])


@pytest.mark.parametrize("address", ["169.254.0.255", "169.254.255.0", "10.0.0.1", "169.253.1.1"])
def test_other_addresses_are_refused_before_anything_else(address: str) -> None:
    with pytest.raises(MmdsAddressNotLinkLocal):
        mmds.check(MmdsConfig(network_interfaces=[], ipv4_address=address), [])


def test_the_metadata_service_wants_interfaces_that_exist() -> None:
    with pytest.raises(NoMmdsInterface):
        mmds.check(MmdsConfig(network_interfaces=[]), ["a"])
    with pytest.raises(UnknownMmdsInterface):
        mmds.check(MmdsConfig(network_interfaces=["a", "b"]), ["a"])


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1..2.3", "a.b.c.d", "１.2.3.4"]
)
def test_not_a_dotted_quad(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid IPv4 address syntax$"):
        dotted_quad(text)
