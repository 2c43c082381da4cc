"""Network interfaces (api.md §3.7)."""

import os
import re
from collections.abc import Callable
from typing import Annotated, Final

from hibana.config.rate_limit import RateLimiterConfig, effective, merged
from hibana.errors import CreateNetworkError, InvalidMtu, VmmError
from hibana.serde.shapes import U16, Converted, Strict

MIN_MTU: Final = 68

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


OpenTap = Callable[[str], tuple[int, str]]
"""Attaches to a tap interface by name; gives a descriptor and the name the kernel knows it by. Raises VmmError."""


class Interface:
    """A network interface whose tap is open."""

    def __init__(self, config: NetworkInterfaceConfig, open_tap: OpenTap) -> None:
        """Check the MTU and open the tap. Raises CreateNetworkError."""
        try:
            if config.mtu is not None and config.mtu < MIN_MTU:
                raise InvalidMtu(mtu=config.mtu)
            fd, name = open_tap(config.host_dev_name)
        except VmmError as error:
            raise CreateNetworkError(cause=error) from error
        self.fd = fd
        self.config = NetworkInterfaceConfig(
            iface_id=config.iface_id,
            host_dev_name=name,
            guest_mac=config.guest_mac,
            mtu=config.mtu,
            rx_rate_limiter=effective(config.rx_rate_limiter),
            tx_rate_limiter=effective(config.tx_rate_limiter),
        )

    def update(self, change: NetworkInterfaceUpdateConfig) -> None:
        """Show the rate limiters as they are after a change."""
        self.config.rx_rate_limiter = merged(self.config.rx_rate_limiter, change.rx_rate_limiter)
        self.config.tx_rate_limiter = merged(self.config.tx_rate_limiter, change.tx_rate_limiter)

    def close(self) -> None:
        """Let go of the tap."""
        os.close(self.fd)
