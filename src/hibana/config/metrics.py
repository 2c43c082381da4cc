"""The metrics (api.md §3.13)."""

from hibana.serde.shapes import Loose, Path


class MetricsConfig(Loose):
    metrics_path: Path
    emit_id: bool = False
    properties: dict[str, str] | None = None
