"""Persistent memory devices (api.md §3.8); the file is opened and measured when the microVM starts."""

from hibana.config.rate_limit import RateLimiterConfig
from hibana.serde.shapes import Strict


class PmemConfig(Strict):
    id: str
    path_on_host: str
    root_device: bool = False
    read_only: bool = False
    rate_limiter: RateLimiterConfig | None = None


class PmemDeviceUpdateConfig(Strict):
    id: str
    rate_limiter: RateLimiterConfig | None = None
