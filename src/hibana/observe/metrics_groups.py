"""Every metric, group by group, in the order and under the names in which they are written (api.md §10.2).

The class bodies are the table. To count is to add to an attribute: `METRICS.vcpu.exit_io_in += 1`. Two threads adding
to the same counter at the same moment may lose a count; that is cheaper than a lock on every guest exit.
"""

from typing import Annotated, Final, Generic, TypeVar

Count = int
"""Only ever grows; what is written is the growth since the line before."""
Store = Annotated[int, "store"]
"""The value that was stored last; never reset."""


class Latency:
    """How long something took: shortest, longest (0 = never happened) and the sum since the line before."""

    __slots__ = ("max_us", "min_us", "sum_us")

    def __init__(self) -> None:
        self.min_us = 0
        self.max_us = 0
        self.sum_us = 0

    def record(self, took_us: int) -> None:
        """Add one measurement."""
        if took_us < self.min_us or not self.min_us:
            self.min_us = took_us
        if took_us > self.max_us:
            self.max_us = took_us
        self.sum_us += took_us


class Group:
    """One object of the metrics line, made from the annotations of its class."""

    def __init__(self) -> None:
        for key, kind in type(self).__annotations__.items():
            setattr(self, key, Latency() if kind is Latency else 0)
        self._written: dict[str, int] = {}

    def emit(self) -> dict[str, object]:
        """Give what this group contributes to a line, and start the next line's counts from here."""
        return {key: self._emit(key, kind) for key, kind in type(self).__annotations__.items()}

    def _emit(self, key: str, kind: object) -> object:
        value = getattr(self, key)
        if kind is Latency:
            return {"min_us": value.min_us, "max_us": value.max_us, "sum_us": self._growth(key, value.sum_us)}
        return self._growth(key, value) if kind is Count else value

    def _growth(self, key: str, value: int) -> int:
        written, self._written[key] = self._written.get(key, 0), value
        return value - written


_G = TypeVar("_G", bound=Group)


class PerDevice(dict[str, _G], Generic[_G]):
    """The groups of all devices of one kind, by device id; a device's group exists once it is asked for."""

    def __init__(self, group: type[_G], summed: bool = True) -> None:
        super().__init__()
        self._group = group
        self._summed = summed

    def __missing__(self, device_id: str) -> _G:
        group = self[device_id] = self._group()
        return group

    def emit(self, kind: str) -> dict[str, object]:
        """Give one object per device, ordered by id, and then their sum under the name of the kind."""
        parts = {device_id: self[device_id].emit() for device_id in sorted(self)}
        objects: dict[str, object] = {f"{kind}_{device_id}": part for device_id, part in parts.items()}
        if self._summed:
            objects[kind] = self._sum(list(parts.values()))
        return objects

    def _sum(self, parts: list[dict[str, object]]) -> dict[str, object]:
        total = self._group().emit()
        for part in parts:
            for key, value in part.items():
                present = total[key]
                if isinstance(value, int) and isinstance(present, int):
                    total[key] = present + value
                elif isinstance(value, dict) and isinstance(present, dict):
                    present["sum_us"] += value["sum_us"]  # a shortest of several devices means nothing: 0
        return total


class ApiServer(Group):
    process_startup_time_us: Store
    process_startup_time_cpu_us: Store


class Balloon(Group):
    activate_fails: Count
    inflate_count: Count
    stats_updates_count: Count
    stats_update_fails: Count
    deflate_count: Count
    event_fails: Count
    free_page_report_count: Count
    free_page_report_freed: Count
    free_page_report_fails: Count
    free_page_hint_count: Count
    free_page_hint_freed: Count
    free_page_hint_fails: Count


class Block(Group):
    activate_fails: Count
    cfg_fails: Count
    no_avail_buffer: Count
    event_fails: Count
    execute_fails: Count
    invalid_reqs_count: Count
    flush_count: Count
    queue_event_count: Count
    rate_limiter_event_count: Count
    update_count: Count
    update_fails: Count
    read_bytes: Count
    write_bytes: Count
    read_count: Count
    write_count: Count
    read_agg: Latency
    write_agg: Latency
    rate_limiter_throttled_events: Count
    io_engine_throttled_events: Count
    remaining_reqs_count: Count


class DeprecatedApi(Group):
    deprecated_http_api_calls: Count


class GetApiRequests(Group):
    instance_info_count: Count
    machine_cfg_count: Count
    mmds_count: Count
    vmm_version_count: Count
    hotplug_memory_count: Count


class I8042(Group):
    error_count: Count
    missed_read_count: Count
    missed_write_count: Count
    read_count: Count
    reset_count: Count
    write_count: Count


class Uart(Group):
    error_count: Count
    flush_count: Count
    missed_read_count: Count
    missed_write_count: Count
    read_count: Count
    write_count: Count
    rate_limiter_dropped_bytes: Count


class LatenciesUs(Group):
    full_create_snapshot: Store
    diff_create_snapshot: Store
    load_snapshot: Store
    pause_vm: Store
    resume_vm: Store
    vmm_full_create_snapshot: Store
    vmm_diff_create_snapshot: Store
    vmm_load_snapshot: Store
    vmm_pause_vm: Store
    vmm_resume_vm: Store


class LoggerSystem(Group):
    missed_metrics_count: Count
    metrics_fails: Count
    missed_log_count: Count
    rate_limited_log_count: Count


class Mmds(Group):
    rx_accepted: Count
    rx_accepted_err: Count
    rx_accepted_unusual: Count
    rx_bad_eth: Count
    rx_invalid_token: Count
    rx_no_token: Count
    rx_count: Count
    tx_bytes: Count
    tx_count: Count
    tx_errors: Count
    tx_frames: Count
    connections_created: Count
    connections_destroyed: Count


class Net(Group):
    activate_fails: Count
    cfg_fails: Count
    no_rx_avail_buffer: Count
    no_tx_avail_buffer: Count
    event_fails: Count
    rx_queue_event_count: Count
    rx_event_rate_limiter_count: Count
    rx_rate_limiter_throttled: Count
    rx_tap_event_count: Count
    rx_bytes_count: Count
    rx_packets_count: Count
    rx_fails: Count
    rx_count: Count
    tap_read_fails: Count
    tap_write_fails: Count
    tap_write_agg: Latency
    tx_bytes_count: Count
    tx_malformed_frames: Count
    tx_fails: Count
    tx_count: Count
    tx_packets_count: Count
    tx_queue_event_count: Count
    tx_rate_limiter_event_count: Count
    tx_rate_limiter_throttled: Count
    tx_spoofed_mac_count: Count
    tx_remaining_reqs_count: Count


class PatchApiRequests(Group):
    drive_count: Count
    drive_fails: Count
    network_count: Count
    network_fails: Count
    machine_cfg_count: Count
    machine_cfg_fails: Count
    mmds_count: Count
    mmds_fails: Count
    hotplug_memory_count: Count
    hotplug_memory_fails: Count
    pmem_count: Count
    pmem_fails: Count


class PutApiRequests(Group):
    actions_count: Count
    actions_fails: Count
    boot_source_count: Count
    boot_source_fails: Count
    drive_count: Count
    drive_fails: Count
    logger_count: Count
    logger_fails: Count
    machine_cfg_count: Count
    machine_cfg_fails: Count
    cpu_cfg_count: Count
    cpu_cfg_fails: Count
    metrics_count: Count
    metrics_fails: Count
    network_count: Count
    network_fails: Count
    mmds_count: Count
    mmds_fails: Count
    vsock_count: Count
    vsock_fails: Count
    pmem_count: Count
    pmem_fails: Count
    serial_count: Count
    serial_fails: Count
    hotplug_memory_count: Count
    hotplug_memory_fails: Count


class Seccomp(Group):
    num_faults: Store


class Vcpu(Group):
    exit_io_in: Count
    exit_io_out: Count
    exit_mmio_read: Count
    exit_mmio_write: Count
    failures: Count
    kvmclock_ctrl_fails: Count
    exit_io_in_agg: Latency
    exit_io_out_agg: Latency
    exit_mmio_read_agg: Latency
    exit_mmio_write_agg: Latency


class Vmm(Group):
    panic_count: Store


class Signals(Group):
    sigbus: Store
    sigsegv: Store
    sigxfsz: Store
    sigxcpu: Store
    sigpipe: Count
    sighup: Store
    sigill: Store


class Vsock(Group):
    activate_fails: Count
    cfg_fails: Count
    rx_queue_event_fails: Count
    tx_queue_event_fails: Count
    ev_queue_event_fails: Count
    muxer_event_fails: Count
    conn_event_fails: Count
    rx_queue_event_count: Count
    tx_queue_event_count: Count
    rx_bytes_count: Count
    tx_bytes_count: Count
    rx_packets_count: Count
    tx_packets_count: Count
    conns_added: Count
    conns_killed: Count
    conns_removed: Count
    killq_resync: Count
    tx_flush_fails: Count
    tx_write_fails: Count
    rx_read_fails: Count


class Entropy(Group):
    activate_fails: Count
    entropy_event_fails: Count
    entropy_event_count: Count
    entropy_bytes: Count
    host_rng_fails: Count
    entropy_rate_limiter_throttled: Count
    rate_limiter_event_count: Count


class Pmem(Group):
    activate_fails: Count
    cfg_fails: Count
    event_fails: Count
    queue_event_count: Count
    rate_limiter_throttled_events: Count
    rate_limiter_event_count: Count


class VhostUserBlock(Group):
    activate_fails: Count
    cfg_fails: Count
    init_time_us: Store
    activate_time_us: Store
    config_change_time_us: Store


class Interrupts(Group):
    triggers: Count
    config_updates: Count


class MemoryHotplug(Group):
    activate_fails: Count
    queue_event_fails: Count
    queue_event_count: Count
    plug_agg: Latency
    plug_count: Count
    plug_bytes: Count
    plug_fails: Count
    unplug_agg: Latency
    unplug_count: Count
    unplug_bytes: Count
    unplug_fails: Count
    unplug_discard_fails: Count
    unplug_all_agg: Latency
    unplug_all_count: Count
    unplug_all_fails: Count
    state_agg: Latency
    state_count: Count
    state_fails: Count


class Metrics:
    """All groups; the order of the assignments is the order in the line."""

    def __init__(self) -> None:
        self.api_server = ApiServer()
        self.balloon = Balloon()
        self.block = PerDevice(Block)
        self.deprecated_api = DeprecatedApi()
        self.get_api_requests = GetApiRequests()
        self.i8042 = I8042()
        self.uart = Uart()
        self.latencies_us = LatenciesUs()
        self.logger = LoggerSystem()
        self.mmds = Mmds()
        self.net = PerDevice(Net)
        self.patch_api_requests = PatchApiRequests()
        self.put_api_requests = PutApiRequests()
        self.seccomp = Seccomp()
        self.vcpu = Vcpu()
        self.vmm = Vmm()
        self.signals = Signals()
        self.vsock = Vsock()
        self.entropy = Entropy()
        self.pmem = PerDevice(Pmem)
        self.vhost_user_block = PerDevice(VhostUserBlock, summed=False)
        self.interrupts = Interrupts()
        self.memory_hotplug = MemoryHotplug()

    def emit(self) -> dict[str, object]:
        """Give the groups of one line, and start the next line's counts from here."""
        line: dict[str, object] = {}
        for name, group in vars(self).items():
            if isinstance(group, PerDevice):
                line.update(group.emit(name))
            else:
                line[name] = group.emit()
        return line


METRICS: Final = Metrics()
"""The counters of this process."""
