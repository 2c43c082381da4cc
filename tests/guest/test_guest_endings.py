"""How a microVM ends (machine.md §7), and how it does not."""

import signal
import time

from tests.guest.conftest import Boot


def test_a_reboot_ends_the_vmm_with_success(boot: Boot) -> None:
    vm = boot()
    vm.send("reboot -f\n")
    vm.wait_for("reboot: Restarting system")
    assert vm.exit_code == 0


def test_a_panic_reboots_and_so_ends_the_vmm_with_success(boot: Boot) -> None:
    vm = boot()
    vm.send("echo c >/proc/sysrq-trigger\n")
    vm.wait_for("Kernel panic - not syncing: sysrq triggered crash")
    assert vm.exit_code == 0


def test_the_end_of_init_is_a_panic_too(boot: Boot) -> None:
    vm = boot(cmdline="rdinit=/bin/true", shell=False)
    vm.wait_for("Attempted to kill init!")
    assert vm.exit_code == 0


def test_poweroff_halts_the_cpus_and_nothing_else(boot: Boot) -> None:
    vm = boot(vcpus=2)
    vm.send("poweroff -f\n")
    vm.wait_for("reboot: ")
    time.sleep(0.5)
    assert vm.is_running
    assert vm.api.get_instance_info().state == "Running"
    vm.vmm.process.send_signal(signal.SIGTERM)
    assert vm.exit_code == -signal.SIGTERM


def test_a_triple_fault_is_an_error(boot: Boot) -> None:
    vm = boot(cmdline="reboot=t")
    vm.send("reboot -f\n")
    assert vm.exit_code == 1


def test_ctrl_alt_del_reboots(boot: Boot) -> None:
    vm = boot()
    vm.run("grep -q 'AT Translated Set 2 keyboard\\|AT Raw Set 2 keyboard' /proc/bus/input/devices")
    vm.api.send_ctrl_alt_del()
    assert vm.exit_code == 0


def test_sigterm_ends_a_running_microvm(boot: Boot) -> None:
    vm = boot()
    vm.vmm.process.terminate()
    assert vm.exit_code == -signal.SIGTERM
