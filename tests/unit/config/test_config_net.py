"""Network interfaces: addresses, names, sizes."""

import pytest

from hibana.config import net as net_rules
from hibana.config.net import NetworkInterfaceConfig, mac_address
from hibana.errors import (
    CreateNetworkError,
)


def test_a_mac_address_is_shown_in_lower_case() -> None:
    assert mac_address("06:00:C0:A8:00:0F") == "06:00:c0:a8:00:0f"


@pytest.mark.parametrize(
    "text", ["", "06:00", "6:0:0:0:0:0", "06-00-00-00-00-00", "0g:00:00:00:00:00", "06:00:00:00:00:00 "]
)
def test_not_a_mac_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^The provided MAC address is invalid\.$"):
        mac_address(text)


def test_a_tap_name_of_sixteen_bytes_is_too_long() -> None:
    net_rules.checked(NetworkInterfaceConfig("a", "x" * 15))
    with pytest.raises(CreateNetworkError) as refused:
        net_rules.checked(NetworkInterfaceConfig("a", "x" * 16))
    assert str(refused.value) == "Could not create the network device: Open tap device failed: Invalid interface name"


def test_an_mtu_below_68_is_refused() -> None:
    net_rules.checked(NetworkInterfaceConfig("a", "tap0", mtu=68))
    with pytest.raises(CreateNetworkError) as refused:
        net_rules.checked(NetworkInterfaceConfig("a", "tap0", mtu=67))
    assert str(refused.value) == "Could not create the network device: MTU 67 is out of range [68, 65535]"
