"""Actions (api.md §3.3)."""

from typing import Literal

from hibana.serde.shapes import Strict


class ActionBody(Strict):
    action_type: Literal["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]
