"""The metadata service: who may ask, and where it answers (api.md §3.15)."""

from collections.abc import Collection
from typing import Annotated, Final, Literal

from hibana.errors import MmdsAddressNotLinkLocal, NoMmdsInterface, UnknownMmdsInterface
from hibana.serde.shapes import Converted, Strict

DEFAULT_IPV4_ADDRESS: Final = "169.254.169.254"


def dotted_quad(text: str) -> str:
    """Check a dotted quad: four numbers up to 255 without leading zeros."""
    numbers = text.split(".")
    if len(numbers) != 4 or not all(_is_octet(number) for number in numbers):
        raise ValueError("invalid IPv4 address syntax")
    return text


def _is_octet(number: str) -> bool:
    return number.isascii() and number.isdigit() and str(int(number[:4])) == number and int(number) <= 255


class MmdsConfig(Strict, kw_only=True):
    version: Literal["V1", "V2"] = "V1"
    network_interfaces: list[str]
    ipv4_address: Annotated[str, Converted(dotted_quad, expected="IPv4 address")] | None = None
    imds_compat: bool = False


def check(config: MmdsConfig, interfaces: Collection[str]) -> None:
    """Check address, then interfaces. Raises MmdsAddressNotLinkLocal, NoMmdsInterface, UnknownMmdsInterface."""
    if not _is_link_local(config.ipv4_address or DEFAULT_IPV4_ADDRESS):
        raise MmdsAddressNotLinkLocal
    if not config.network_interfaces:
        raise NoMmdsInterface
    if not set(config.network_interfaces) <= set(interfaces):
        raise UnknownMmdsInterface


def _is_link_local(address: str) -> bool:
    """RFC 3927 §2.1: the first and the last 256 addresses of 169.254/16 are reserved."""
    first, second, third, _ = (int(number) for number in address.split("."))
    return (first, second) == (169, 254) and 1 <= third <= 254
