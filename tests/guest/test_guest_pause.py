"""A paused microVM stands still, and afterwards goes on as if nothing had been."""

import re
import time

from tests.guest.conftest import Boot
from tests.guest.microvm import MicroVm

PAUSE = 3.0


def test_a_paused_guest_says_nothing_and_then_goes_on(boot: Boot) -> None:
    vm = boot()
    vm.send("i=0; while :; do echo tick $i; i=$((i + 1)); sleep 0.1; done\n")
    vm.wait_for("tick 5")
    vm.api.pause_vm()
    assert vm.api.get_instance_info().state == "Paused"
    before = settled(vm)
    time.sleep(PAUSE)
    assert vm.console.text == before
    vm.api.resume_vm()
    last = int(re.findall(r"tick (\d+)\n", before)[-1])
    vm.wait_for(f"tick {last + 20}\n")


def settled(vm: MicroVm) -> str:
    """Wait until what was under way in the pipe has arrived; give all of it."""
    before, now = "", vm.console.text
    while now != before:
        time.sleep(0.5)
        before, now = now, vm.console.text
    return now


def test_clock_and_timers_are_sane_after_a_pause(boot: Boot) -> None:
    vm = boot(vcpus=2)
    before = float(vm.run("cut -d' ' -f1 /proc/uptime"))
    vm.api.pause_vm()
    time.sleep(PAUSE)
    vm.api.resume_vm()
    after = float(vm.run("cut -d' ' -f1 /proc/uptime"))
    assert before < after
    vm.run("sleep 1; usleep 1000")
    assert float(vm.run("cut -d' ' -f1 /proc/uptime")) >= after + 1
    log = vm.run("dmesg")
    for complaint in ("unstable", "soft lockup", "rcu", "stall", "clocksource: timekeeping watchdog"):
        assert complaint not in log.partition("Run /init")[2]


def test_many_pauses_lose_nothing(boot: Boot) -> None:
    vm = boot(vcpus=2)
    vm.send("sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo counted $i'\n")
    for _ in range(20):
        vm.api.pause_vm()
        vm.api.resume_vm()
    vm.wait_for("counted 30000")
