"""Snapshots: where they go and where they come from (api.md §3.17, §3.18)."""

from typing import Literal

from msgspec import field

from hibana.errors import JsonError
from hibana.serde.shapes import Loose, Path, Strict


class CreateSnapshotParams(Strict, kw_only=True):
    snapshot_type: Literal["Diff", "Full"] = "Full"
    snapshot_path: Path
    mem_file_path: Path


class MemBackendConfig(Strict):
    backend_path: Path
    backend_type: Literal["File", "Uffd"]


class NetworkOverride(Loose):
    iface_id: str
    host_dev_name: str


class VsockOverride(Loose):
    uds_path: str


class LoadSnapshotConfig(Strict):
    snapshot_path: Path
    mem_file_path: Path | None = None
    mem_backend: MemBackendConfig | None = None
    enable_diff_snapshots: bool = False
    track_dirty_pages: bool = False
    resume_vm: bool = False
    network_overrides: list[NetworkOverride] = field(default_factory=list)
    vsock_override: VsockOverride | None = None
    clock_realtime: bool = False
    huge_pages: Literal["Snapshot", "None", "Transparent", "2M"] = "Snapshot"

    def memory(self) -> MemBackendConfig:
        """Tell where the guest's memory comes from, whichever of the two fields says it. Raises JsonError."""
        if self.mem_backend is not None:
            if self.mem_file_path is not None:
                raise JsonError("too many fields: either `mem_backend` or `mem_file_path` exclusively is required")
            return self.mem_backend
        if self.mem_file_path is None:
            raise JsonError("missing field: either `mem_backend` or `mem_file_path` is required")
        return MemBackendConfig(self.mem_file_path, "File")
