"""PATCH /drives: another file, another limit, while a driver in a guest is looking."""

import fcntl
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from types import SimpleNamespace
from typing import Any, Final

import pytest

from hibana.bus.home import Home
from hibana.bus.loop import Loop
from hibana.config.drive import BlockDeviceConfig, BlockDeviceUpdateConfig, Drive
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.config.resources import Resources
from hibana.devices.mmds.store import Store
from hibana.devices.virtio.block_request import IN, OK
from hibana.errors import ActionError, VirtioDriveError
from hibana.host.io_uring import Ring
from hibana.observe.metrics_groups import METRICS
from hibana.testing.disk import grant_async
from hibana.testing.net import open_fake_tap
from hibana.testing.virtio import Driver
from hibana.vmm import attached
from hibana.vmm.attached import AttachedDrive
from hibana.vmm.running import Running
from hibana.vmm.verbs import Call, perform

TEN_PER_SECOND: Final = TokenBucketConfig(size=10, refill_time=1000)
NO_LIMIT: Final = TokenBucketConfig(size=0, refill_time=0)


class Bench:
    """A drive of two sectors of `a` in a directory where there is also one sector of `b`."""

    def __init__(self, directory: Path, **config: Any) -> None:
        METRICS.block.pop("disk", None)
        self.images = {name: directory / name for name in "ab"}
        self.images["a"].write_bytes(b"a" * 1024)
        self.images["b"].write_bytes(b"b" * 512)
        self.loop = Loop()
        self.drive = Drive(
            BlockDeviceConfig(drive_id="disk", is_root_device=False, path_on_host=str(self.images["a"]), **config),
            grant_async,
        )
        try:
            self.attached = AttachedDrive(self.drive, Home(self.loop, lambda task: task()))
        except VirtioDriveError as error:
            pytest.skip(f"this host has no io_uring for us: {error}")
        self.driver = Driver()
        self.driver.start(self.attached.device)
        machine = SimpleNamespace(drives={"disk": self.attached}, ask_devices=lambda question: question())
        self.running = Running(machine, Resources(open_fake_tap, grant_async), Store(0))  # type: ignore[arg-type]

    def patch(self, drive_id: str = "disk", **change: Any) -> None:
        """Ask as the API does."""
        perform(self.running, Call("patch_drive", (BlockDeviceUpdateConfig(drive_id, **change),)), started=True)

    def refusal(self, **change: Any) -> str:
        with pytest.raises(ActionError) as refused:
            self.patch(**change)
        return str(refused.value)

    def offer_read(self) -> int:
        return self.driver.offer(("r", pack("<IIQ", IN, 0, 0)), ("w", 512), ("w", 1))

    def read(self) -> bytes:
        """Let the guest read the first sector."""
        head = self.offer_read()
        self.driver.kick()
        self.attached.device.drain()
        content, status = self.driver.written(head)
        assert status == bytes([OK])
        return content

    def run_loop(self) -> None:
        """Let the loop do what it was asked for: a round for each watch, forget and close."""
        for _ in range(5):
            self.loop.after(0, self.loop.stop)
            self.loop.run()

    def close(self) -> None:
        self.attached.close()
        self.run_loop()
        self.loop.close()
        self.drive.close()


@pytest.fixture(params=["Sync", "Async"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, io_engine=request.param)
    yield bench
    bench.close()


def open_files() -> list[str]:
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


def test_another_file_takes_over_and_the_guest_hears_of_its_size(bench: Bench) -> None:
    assert (bench.read(), bench.attached.device.read_config(0, 8)) == (b"a" * 512, 2)
    bench.patch(path_on_host=str(bench.images["b"]))
    assert (bench.read(), bench.attached.device.read_config(0, 8)) == (b"b" * 512, 1)
    assert bench.driver.irq.config_count == 1
    assert bench.drive.config.path_on_host == str(bench.images["b"])
    assert METRICS.block["disk"].update_count == 1


def test_the_former_file_is_closed(bench: Bench) -> None:
    before = len(open_files())
    bench.patch(path_on_host=str(bench.images["b"]))
    bench.run_loop()
    assert len(open_files()) == before


def test_the_same_path_announces_that_the_file_has_grown(bench: Bench) -> None:
    os.truncate(bench.images["a"], 4096)
    bench.patch(path_on_host=str(bench.images["a"]))
    assert bench.attached.device.read_config(0, 8) == 8
    assert bench.driver.irq.config_count == 1


def test_what_is_under_way_is_answered_by_the_former_file(bench: Bench) -> None:
    head = bench.offer_read()
    bench.driver.kick()
    bench.patch(path_on_host=str(bench.images["b"]))
    assert bench.driver.completions() == [(head, 513)]
    assert bench.driver.written(head)[0] == b"a" * 512


def test_a_file_that_is_not_there_changes_nothing(bench: Bench) -> None:
    before = open_files()
    assert bench.refusal(path_on_host="foo.bar", rate_limiter=RateLimiterConfig(ops=TEN_PER_SECOND)) == (
        "Drive config error: Unable to patch the block device: Block: Virtio backend error: Error manipulating the"
        " backing file: No such file or directory (os error 2) foo.bar Please verify the request arguments."
    )
    assert bench.read() == b"a" * 512
    assert open_files() == before
    assert bench.driver.irq.config_count == 0
    assert bench.drive.config.path_on_host == str(bench.images["a"])
    assert bench.attached.device.limiter.ops is None, "the limiter would have come second"


def test_there_must_be_something_to_change(bench: Bench) -> None:
    assert bench.refusal() == (
        "Drive config error: Unable to patch the block device: Block: Running method expected different backend."
        " Please verify the request arguments."
    )


def test_a_drive_that_is_not_there_cannot_be_changed(bench: Bench) -> None:
    assert bench.refusal(drive_id="other", path_on_host="foo.bar") == (
        "Drive config error: Unable to patch the block device: Failed perform action on device: Device not found"
        " Please verify the request arguments."
    )


def test_a_limit_is_set_kept_and_taken_away(bench: Bench) -> None:
    limiter = bench.attached.device.limiter
    bench.patch(rate_limiter=RateLimiterConfig(ops=TEN_PER_SECOND, bandwidth=TEN_PER_SECOND))
    assert limiter.ops is not None
    limiter.ops.budget = 3
    bench.patch(rate_limiter=RateLimiterConfig(bandwidth=NO_LIMIT))
    assert limiter.bandwidth is None
    assert limiter.ops.budget == 3, "absent means unchanged"
    assert bench.drive.config.rate_limiter == RateLimiterConfig(ops=TEN_PER_SECOND)
    bench.patch(rate_limiter=RateLimiterConfig(ops=NO_LIMIT))
    assert bench.drive.config.rate_limiter is None
    assert bench.driver.irq.config_count == 0


def test_file_and_limit_change_together(bench: Bench) -> None:
    bench.patch(path_on_host=str(bench.images["b"]), rate_limiter=RateLimiterConfig(ops=TEN_PER_SECOND))
    assert bench.read() == b"b" * 512
    assert bench.attached.device.limiter.ops is not None


def test_a_read_only_drive_stays_read_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, is_read_only=True)
    bench.patch(path_on_host=str(bench.images["b"]))
    assert bench.drive.fd is not None
    assert fcntl.fcntl(bench.drive.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    bench.close()


def test_a_ring_that_takes_no_other_file_leaves_the_drive_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses rings as files of rings, and nothing else that can be opened."""
    bench, other = Bench(tmp_path, io_engine="Async"), Ring(1, 0, ())
    before = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(attached, "open_backing_file", lambda *_: (os.dup(other._fd), 512))
        for _ in range(2):
            assert bench.refusal(path_on_host=str(bench.images["b"])) == (
                "Drive config error: Unable to patch the block device: Block: Virtio backend error: Error coming from"
                " the IO engine: Async error: IoUring: Could not register file: Bad file descriptor (os error 9)"
                " Please verify the request arguments."
            )
    assert open_files() == before
    assert bench.drive.config.path_on_host == str(bench.images["a"])
    assert bench.read() == b"a" * 512
    bench.patch(path_on_host=str(bench.images["b"]))
    assert bench.read() == b"b" * 512
    bench.close()
    other.close()


@pytest.mark.parametrize(("cache_type", "flushes"), [("Unsafe", 0), ("Writeback", 1)])
def test_the_end_makes_a_writeback_drive_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_type: str, flushes: int
) -> None:
    bench = Bench(tmp_path, cache_type=cache_type)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    bench.close()
    assert len(synced) == flushes
