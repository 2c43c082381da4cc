"""Paused or not (api.md §3.16)."""

from typing import Literal

from hibana.serde.shapes import Strict


class Vm(Strict):
    state: Literal["Paused", "Resumed"]
