"""Where the serial console goes (api.md §3.11); the file is opened when the microVM starts."""

from hibana.config.rate_limit import TokenBucketConfig
from hibana.serde.shapes import Path, Strict


class SerialConfig(Strict):
    serial_out_path: Path | None = None
    rate_limiter: TokenBucketConfig | None = None
