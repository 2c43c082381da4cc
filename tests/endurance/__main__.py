"""Boot guests again and again, and compare what they compute with what is right.

python -m tests.endurance boots [--n 200]      boots with 1, 2 and 4 vCPUs in turn
python -m tests.endurance small-buffer [--n 10] with a translation buffer that is full several times in a boot
python -m tests.endurance large [--n 1]        with RAM on both sides of the gap below 4 GiB, most of it used
python -m tests.endurance workload [--n 3]     Python, Perl and sha256 on the plain engine and on the accelerated one
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Final

from hibana.engine.soft.fast import switch
from tests.endurance.guest import Failed, Guest, run
from tools.dev import build, guest

_PATIENCE_S: Final = 300.0

_NUMBERS: Final = 20_000
_SUMS: Final = 4
_ZEROS_KIB: Final = 2048
_ALONE: Final = "dmesg -n 1"
"""What the kernel has to say, about a host that is too slow for instance, stays out of what is compared."""
_CHECK: Final = f"""{_ALONE}
nproc
for i in $(seq {_SUMS}); do (seq {_NUMBERS} | sha256sum) & done
wait
i=0
while [ $i -lt 40 ]; do /bin/busybox true || echo lost; i=$((i + 1)); done
dd if=/dev/zero bs=1024 count={_ZEROS_KIB} 2>/dev/null | sha256sum
"""

_LARGE_MIB: Final = 5120
_USED_MIB: Final = 2300
"""More than there is above the gap."""
_LARGE_CHECK: Final = f"""{_ALONE}
[ $(sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) -gt {_LARGE_MIB * 960} ] || echo too small
dd if=/dev/zero of=/tmp/large bs=1M count={_USED_MIB} 2>/dev/null
stat -c %s /tmp/large
for at in 0 {_USED_MIB // 2} {_USED_MIB - 2}; do dd if=/tmp/large bs=1M skip=$at count=2 2>/dev/null | sha256sum; done
"""


def _sum(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  -\n"


def _expected(vcpus: int) -> str:
    numbers = "".join(f"{number}\n" for number in range(1, _NUMBERS + 1)).encode()
    return f"{vcpus}\n{_sum(numbers) * _SUMS}{_sum(bytes(_ZEROS_KIB << 10))}"


def _boots(n: int, *, small_buffer: bool = False) -> Iterator[str]:
    for _, vcpus in zip(range(n), cycle((1, 2, 4)), strict=False):
        yield _difference(Guest(_CHECK, vcpus, small_buffer=small_buffer), _expected(vcpus))


def _small_buffer(n: int) -> Iterator[str]:
    return _boots(n, small_buffer=True)


def _large(n: int) -> Iterator[str]:
    for _ in range(n):
        expected = f"{_USED_MIB << 20}\n{_sum(bytes(2 << 20)) * 3}"
        yield _difference(Guest(_LARGE_CHECK, mem_mib=_LARGE_MIB), expected)


def _workload(n: int) -> Iterator[str]:
    for _, vcpus in zip(range(n), cycle((1, 2, 4)), strict=False):
        whole = Guest(f"{_ALONE}; sh /bench/phases.sh", vcpus, 512, "script.cpio")
        try:
            plain = run(whole._replace(setting=switch.PLAIN), _PATIENCE_S)
        except Failed as failed:
            yield f"the plain engine {failed}"
        else:
            yield _difference(whole, plain)


def _difference(wanted: Guest, expected: str) -> str:
    """Boot, and say what is not as it should be; empty when everything is."""
    try:
        printed = run(wanted, _PATIENCE_S)
    except Failed as failed:
        return f"{wanted.vcpus} vCPUs: {failed}"
    return "" if printed == expected else f"{wanted.vcpus} vCPUs: printed\n{printed}instead of\n{expected}"


_KINDS: Final[dict[str, tuple[Callable[[int], Iterator[str]], int]]] = {
    "boots": (_boots, 200),
    "small-buffer": (_small_buffer, 10),
    "large": (_large, 1),
    "workload": (_workload, 3),
}


def main() -> int:
    """Boot as often as wanted; every failure is said at once."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("kind", choices=_KINDS)
    parser.add_argument("--n", type=int)
    options = parser.parse_args()
    build.ensure()
    guest.ensure()
    boot, usual = _KINDS[options.kind]
    began, bad, count = time.monotonic(), 0, 0
    for count, finding in enumerate(boot(options.n or usual), start=1):
        if finding:
            bad += 1
            print(f"{count}: {finding}", flush=True)
    print(f"{options.kind}: {count} in {time.monotonic() - began:.0f} s, {bad} bad")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
