"""The entropy device (api.md §3.10)."""

from hibana.config.rate_limit import RateLimiterConfig
from hibana.serde.shapes import Strict


class EntropyDeviceConfig(Strict):
    rate_limiter: RateLimiterConfig | None = None
