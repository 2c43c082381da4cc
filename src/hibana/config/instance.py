"""What a microVM says about itself (api.md §3.2)."""

from typing import Literal

from msgspec import Struct

from hibana import FIRECRACKER_VERSION

State = Literal["Not started", "Running", "Paused"]


class InstanceInfo(Struct):
    """The answer of GET /."""

    id: str
    state: State
    vmm_version: str = FIRECRACKER_VERSION
    app_name: str = "Firecracker"


class VmmVersion(Struct):
    """The answer of GET /version."""

    firecracker_version: str = FIRECRACKER_VERSION
