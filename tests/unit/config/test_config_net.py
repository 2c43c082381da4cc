"""Network interfaces: addresses, names, sizes, and the tap behind them."""

import os

import pytest

from hibana.config.net import Interface, NetworkInterfaceConfig, NetworkInterfaceUpdateConfig, mac_address
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.errors import CreateNetworkError, CreateTapError, TapOpenError
from hibana.testing.net import open_fake_tap

NO_LIMIT = TokenBucketConfig(size=0, refill_time=0)


def bucket(size: int) -> TokenBucketConfig:
    return TokenBucketConfig(size=size, refill_time=100)


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_a_mac_address_is_shown_in_lower_case() -> None:
    assert mac_address("06:00:C0:A8:00:0F") == "06:00:c0:a8:00:0f"


@pytest.mark.parametrize(
    "text", ["", "06:00", "6:0:0:0:0:0", "06-00-00-00-00-00", "0g:00:00:00:00:00", "06:00:00:00:00:00 "]
)
def test_not_a_mac_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^The provided MAC address is invalid\.$"):
        mac_address(text)


def test_an_interface_holds_its_tap_until_it_is_closed() -> None:
    interface = Interface(NetworkInterfaceConfig("a", "tap0"), open_fake_tap)
    assert is_open(interface.fd)
    interface.close()
    assert not is_open(interface.fd)


def test_an_interface_shows_the_name_that_the_kernel_gave() -> None:
    interface = Interface(NetworkInterfaceConfig("a", "tap%d"), open_fake_tap)
    interface.close()
    assert interface.config.host_dev_name == "tap0"


def test_a_tap_that_cannot_be_opened_is_the_clients_mistake() -> None:
    def busy(name: str) -> tuple[int, str]:
        raise TapOpenError(cause=CreateTapError(cause="Resource busy (os error 16)", name=name))

    with pytest.raises(CreateNetworkError) as refused:
        Interface(NetworkInterfaceConfig("a", "tap0"), busy)
    assert str(refused.value) == (
        "Could not create the network device: Open tap device failed: Error while creating ifreq structure: Resource"
        " busy (os error 16). Invalid TUN/TAP Backend provided by tap0. Check our documentation on setting up the"
        " network devices."
    )


def test_an_mtu_below_68_is_refused_before_the_tap_is_touched() -> None:
    def never(name: str) -> tuple[int, str]:
        raise AssertionError(name)

    Interface(NetworkInterfaceConfig("a", "tap0", mtu=68), open_fake_tap).close()
    with pytest.raises(CreateNetworkError) as refused:
        Interface(NetworkInterfaceConfig("a", "tap0", mtu=67), never)
    assert str(refused.value) == "Could not create the network device: MTU 67 is out of range [68, 65535]"


def test_a_patch_changes_the_buckets_that_it_names() -> None:
    config = NetworkInterfaceConfig("a", "tap0", rx_rate_limiter=RateLimiterConfig(bucket(1), bucket(2)))
    interface = Interface(config, open_fake_tap)
    interface.close()

    interface.update(NetworkInterfaceUpdateConfig("a"))
    assert interface.config.rx_rate_limiter == RateLimiterConfig(bucket(1), bucket(2))

    interface.update(NetworkInterfaceUpdateConfig("a", RateLimiterConfig(ops=bucket(3)), RateLimiterConfig(bucket(4))))
    assert interface.config.rx_rate_limiter == RateLimiterConfig(bucket(1), bucket(3))
    assert interface.config.tx_rate_limiter == RateLimiterConfig(bucket(4), None)

    interface.update(NetworkInterfaceUpdateConfig("a", RateLimiterConfig(NO_LIMIT, NO_LIMIT)))
    assert interface.config.rx_rate_limiter is None
