"""The vsock device (api.md §3.8b)."""

from msgspec import UNSET, UnsetType

from hibana.serde.shapes import U32, Strict


class VsockDeviceConfig(Strict, kw_only=True):
    """`vsock_id` is deprecated: accepted, ignored, not shown."""

    vsock_id: str | UnsetType | None = UNSET
    guest_cid: U32
    uds_path: str
