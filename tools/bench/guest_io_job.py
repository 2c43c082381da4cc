"""What the guest of `bench guest-io` runs: fio and iperf3, and their figures as one line of JSON.

`throughput SECONDS [HOST PORT]`, or `latency SECONDS` in a guest of two CPUs.
"""

import json
import subprocess
import sys
from typing import Any

_FIO = "fio --name=bench --filename=/dev/vda --readonly --size=192m --direct=1 --time_based --output-format=json"
_RANDOM = "--rw=randread --bs=4k"
_ALONE = f"{_RANDOM} --ioengine=psync"
_TOGETHER = f"{_RANDOM} --ioengine=libaio --iodepth=32"
_SEQUENTIAL = "--rw=read --bs=1M --ioengine=psync"


def main(kind: str, seconds: str, *peer: str) -> None:
    """Measure one kind of thing."""
    subprocess.run(["dmesg", "--console-off"], check=True)
    figures = (
        _latency(seconds) if kind == "latency" else _throughput(seconds) | (_network(seconds, *peer) if peer else {})
    )
    print(json.dumps(figures))


def _throughput(seconds: str) -> dict[str, float]:
    return {
        "random_read_iops": _fio(_ALONE, seconds)["iops"],
        "random_read_32_iops": _fio(_TOGETHER, seconds)["iops"],
        "sequential_mb_s": _fio(_SEQUENTIAL, seconds)["bw_bytes"] / 1e6,
    }


def _network(seconds: str, host: str, port: str) -> dict[str, float]:
    client = f"iperf3 --client {host} --port {port} --time {seconds} --interval 0 --json"
    return {
        "to_host_mbit_s": _run(client)["end"]["sum_received"]["bits_per_second"] / 1e6,
        "to_guest_mbit_s": _run(f"{client} --reverse")["end"]["sum_received"]["bits_per_second"] / 1e6,
    }


def _latency(seconds: str) -> dict[str, float]:
    figures = _percentiles("alone", seconds)
    spinning = subprocess.Popen(["taskset", "-c", "1", "sh", "-c", "while :; do :; done"])
    figures |= _percentiles("spinning", seconds)
    spinning.kill()
    return figures


def _percentiles(name: str, seconds: str) -> dict[str, float]:
    """Measure a single read from the system call to its return, on the first CPU."""
    found = _fio(f"{_ALONE} --cpus_allowed=0", seconds)["clat_ns"]["percentile"]
    return {f"{name}_p50_us": found["50.000000"] / 1e3, f"{name}_p99_us": found["99.000000"] / 1e3}


def _fio(options: str, seconds: str) -> dict[str, Any]:
    read: dict[str, Any] = _run(f"{_FIO} --runtime={seconds} {options}")["jobs"][0]["read"]
    return read


def _run(command: str) -> dict[str, Any]:
    done = subprocess.run(command.split(), check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    main(*sys.argv[1:])
