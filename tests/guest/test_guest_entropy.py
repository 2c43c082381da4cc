"""A guest that has no randomness of its own gets some from the entropy device."""

from typing import Final

from hibana.config.entropy import EntropyDeviceConfig
from hibana.config.rate_limit import RateLimiterConfig, TokenBucketConfig
from hibana.sdk.machine import Machine
from tests.guest.conftest import Boot

READ: Final = "dd if=/dev/hwrng bs=512 count={count} 2>/dev/null"


def with_entropy(api: Machine) -> None:
    api.put_entropy(EntropyDeviceConfig())


def test_the_guest_reads_random_bytes(boot: Boot) -> None:
    vm = boot(prepare=with_entropy)
    assert vm.run("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
    assert vm.run(READ.format(count=8) + " | wc -c") == "4096"
    different_bytes = int(vm.run(READ.format(count=8) + " | hexdump -v -e '/1 \"%02x\\n\"' | sort -u | wc -l"))
    assert different_bytes > 250, "4096 random bytes miss none of 256 values, or one"
    assert vm.run("grep -c virtio /proc/interrupts") == "1"


def test_the_device_shows_in_the_configuration(boot: Boot) -> None:
    vm = boot(prepare=with_entropy)
    assert vm.api.get_vm_config().entropy == EntropyDeviceConfig()


def test_a_rate_limit_makes_the_guest_wait(boot: Boot) -> None:
    """512 bytes a second, after a burst: of 3 KiB at most 2 KiB are there at once."""
    limit = RateLimiterConfig(bandwidth=TokenBucketConfig(size=512, one_time_burst=1536, refill_time=1000))
    vm = boot(prepare=lambda api: api.put_entropy(EntropyDeviceConfig(limit)))
    before = float(vm.run("cut -d' ' -f1 /proc/uptime"))
    vm.run(READ.format(count=6))
    assert float(vm.run("cut -d' ' -f1 /proc/uptime")) - before >= 1
