"""Network interfaces (api.md §3.7)."""

import re
from typing import Annotated, Final

from hibana.config.rate_limit import RateLimiterConfig, effective
from hibana.errors import CreateNetworkError, InvalidMtu, InvalidTapName, TapOpenError
from hibana.serde.shapes import U16, Converted, Strict

MIN_MTU: Final = 68
TAP_NAME_LIMIT: Final = 15  # bytes; the kernel's IFNAMSIZ without the NUL

_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}").fullmatch


def mac_address(text: str) -> str:
    """Check an ethernet address and write it as it is shown, in lower case."""
    if not _MAC(text):
        raise ValueError("The provided MAC address is invalid.")
    return text.lower()


class NetworkInterfaceConfig(Strict):
    iface_id: str
    host_dev_name: str
    guest_mac: Annotated[str, Converted(mac_address)] | None = None
    mtu: U16 | None = None
    rx_rate_limiter: RateLimiterConfig | None = None
    tx_rate_limiter: RateLimiterConfig | None = None


class NetworkInterfaceUpdateConfig(Strict):
    iface_id: str
    rx_rate_limiter: RateLimiterConfig | None = None
    tx_rate_limiter: RateLimiterConfig | None = None


def checked(config: NetworkInterfaceConfig) -> NetworkInterfaceConfig:
    """Check what needs no tap and give the interface as it is shown. Raises CreateNetworkError.

    The tap itself is opened by the network device.
    """
    if len(config.host_dev_name.encode()) > TAP_NAME_LIMIT:
        raise CreateNetworkError(cause=TapOpenError(cause=InvalidTapName()))
    if config.mtu is not None and config.mtu < MIN_MTU:
        raise CreateNetworkError(cause=InvalidMtu(mtu=config.mtu))
    return NetworkInterfaceConfig(
        iface_id=config.iface_id,
        host_dev_name=config.host_dev_name,
        guest_mac=config.guest_mac,
        mtu=config.mtu,
        rx_rate_limiter=effective(config.rx_rate_limiter),
        tx_rate_limiter=effective(config.tx_rate_limiter),
    )
