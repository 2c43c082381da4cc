"""What a guest computes is what this machine computes: programs, processes, signals, floating point."""

import hashlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.microvm import MicroVm, start
from tools.guest import cpio

WORKLOAD = Path(cpio.__file__).with_name("workload.py")


@pytest.fixture(scope="module")
def vm(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MicroVm]:
    """Share one microVM: these tests only run programs in it."""
    vm = start(tmp_path_factory.mktemp("programs"), engine, initrd="script.cpio", mem=512)
    yield vm
    vm.stop()


def floats_of_the_host() -> str:
    result: float = runpy.run_path(str(WORKLOAD))["floats"]()
    return result.hex()


def test_python_computes_what_it_computes_here(vm: MicroVm) -> None:
    here = subprocess.run([sys.executable, str(WORKLOAD)], check=True, capture_output=True, text=True)
    assert vm.run("python3 /bench/workload.py") + "\n" == here.stdout


def test_perl_computes_what_python_computes_here(vm: MicroVm) -> None:
    state, root, last = 1, 0.0, {}
    for i in range(1, 500_001):
        state = (state * 69_069 + 12_345) & 0xFFFFFFFF
        if state & 1:
            root += i**0.5
        if i % 50 == 0:
            last[state % 97] = i
    text = ",".join(f"{key}={last[key]}" for key in sorted(last))
    assert vm.run("perl /bench/workload.pl") == f"perl {state} {root:.10f} {len(text)} {text[:20]}"


def test_two_hundred_forks(vm: MicroVm) -> None:
    assert vm.run("for i in $(seq 200); do /bin/busybox true || echo failed $i; done; echo done") == "done"


def test_a_process_keeps_its_floating_point_state_while_others_compute(vm: MicroVm) -> None:
    one = 'python3 -c \'import runpy; print(runpy.run_path("/bench/workload.py")["floats"]().hex())\''
    assert vm.run(f"{one} & {one} & {one} & wait").split() == [floats_of_the_host()] * 3


def test_special_floating_point_values(vm: MicroVm) -> None:
    program = (
        "tiny, huge = 5e-324, 1.7976931348623157e308\n"
        "print(tiny / 2, tiny * 3, huge * 10, huge * 10 - huge * 10, -0.0 * 1, int(huge) % 97)\n"
        "print([round(x) for x in (0.5, 1.5, 2.5, -0.5)], 0.1 + 0.2, 2**0.5, 1e16 + 1, float(2**53 + 1))"
    )
    here = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert vm.run(f"python3 -c '{program}'") + "\n" == here.stdout


def test_a_pipeline_moves_every_byte(vm: MicroVm) -> None:
    expected = hashlib.sha256(bytes(16 << 20)).hexdigest()
    assert vm.run("dd if=/dev/zero bs=64k count=256 2>/dev/null | cat | cat | sha256sum") == f"{expected}  -"


def test_signals_reach_handlers(vm: MicroVm) -> None:
    assert vm.run("trap 'echo caught' USR1; kill -USR1 $$; echo on") == "caught\non"
    vm.run("sleep 60 & kill $!; wait $!", exit_code=128 + 15)


def test_processor_exceptions_become_signals(vm: MicroVm) -> None:
    vm.run("python3 -c 'import faulthandler; faulthandler._sigsegv()'", exit_code=128 + 11)
    vm.run("python3 -c 'import faulthandler; faulthandler._sigfpe()'", exit_code=128 + 8)
    vm.run("python3 -c 'import faulthandler; faulthandler._sigabrt()'", exit_code=128 + 6)


def test_interval_timers_fire_on_time(vm: MicroVm) -> None:
    program = (
        "import signal, time\n"
        "count = 0\n"
        "def tick(*_):\n"
        "    global count\n"
        "    count += 1\n"
        "signal.signal(signal.SIGALRM, tick)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
        "while count < 50: signal.pause()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "print(count >= 50)"  # one more may come before the timer is off
    )
    assert vm.run(f"python3 -c '{program}'") == "True"


def test_sleeping_takes_as_long_as_the_guest_thinks(vm: MicroVm) -> None:
    program = "import time; a = time.monotonic(); time.sleep(1); b = time.monotonic(); print(1 <= b - a)"
    assert vm.run(f"python3 -c '{program}'") == "True"


def test_threads_share_an_address_space(vm: MicroVm) -> None:
    program = (
        "import threading\n"
        "seen = []\n"
        "threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(20)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(sorted(seen) == list(range(20)))"
    )
    assert vm.run(f"python3 -c '{program}'") == "True"
