"""The balloon (api.md §3.9)."""

from msgspec import UNSET, Struct, UnsetType

from hibana.serde.shapes import U16, U32, U64, Loose, Strict


class BalloonDeviceConfig(Strict):
    amount_mib: U32
    deflate_on_oom: bool
    stats_polling_interval_s: U16 = 0
    free_page_hinting: bool = False
    free_page_reporting: bool = False


class BalloonUpdateConfig(Strict):
    amount_mib: U32


class BalloonUpdateStatsConfig(Strict):
    stats_polling_interval_s: U16


class StartHintingCmd(Loose):
    acknowledge_on_stop: bool = True


class HintingStatus(Struct):
    """The answer of GET /balloon/hinting/status."""

    host_cmd: U32
    guest_cmd: U32 | None = None


class BalloonStats(Struct):
    """The answer of GET /balloon/statistics; what the guest has not reported is not shown."""

    target_pages: U32
    actual_pages: U32
    target_mib: U32
    actual_mib: U32
    swap_in: U64 | UnsetType = UNSET
    swap_out: U64 | UnsetType = UNSET
    major_faults: U64 | UnsetType = UNSET
    minor_faults: U64 | UnsetType = UNSET
    free_memory: U64 | UnsetType = UNSET
    total_memory: U64 | UnsetType = UNSET
    available_memory: U64 | UnsetType = UNSET
    disk_caches: U64 | UnsetType = UNSET
    hugetlb_allocations: U64 | UnsetType = UNSET
    hugetlb_failures: U64 | UnsetType = UNSET
    oom_kill: U64 | UnsetType = UNSET
    alloc_stall: U64 | UnsetType = UNSET
    async_scan: U64 | UnsetType = UNSET
    direct_scan: U64 | UnsetType = UNSET
    async_reclaim: U64 | UnsetType = UNSET
    direct_reclaim: U64 | UnsetType = UNSET
