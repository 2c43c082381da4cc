"""The serial line in both directions."""

import hashlib
import random

from tests.guest.conftest import Boot


def test_a_person_types_a_command_and_reads_the_answer(boot: Boot) -> None:
    vm = boot(shell=False)
    vm.wait_for("hibana:/# ")
    vm.send("echo $((6 * 7))\n")
    assert vm.wait_for("hibana:/# ").endswith("echo $((6 * 7))\r\n42\r\nhibana:/# ")


def test_ctrl_c_interrupts_a_command(boot: Boot) -> None:
    vm = boot(shell=False)
    vm.wait_for("hibana:/# ")
    # The command itself says that it has begun: it has the terminal by then, and the key is for nobody else.
    vm.send("sh -c 'echo be\"\"gun; exec sleep 600'\n")
    vm.wait_for("\r\nbegun\r\n")
    vm.send("\x03")
    vm.wait_for("hibana:/# ")
    vm.send("echo $?\n")
    assert "130" in vm.wait_for("hibana:/# ")


def test_the_end_of_the_shell_is_the_end_of_the_microvm(boot: Boot) -> None:
    vm = boot(shell=False)
    vm.wait_for("hibana:/# ")
    vm.send("exit\n")
    assert vm.exit_code == 0


def test_input_longer_than_the_fifo_arrives_complete(boot: Boot) -> None:
    vm = boot()
    letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=3000)
    text = "".join(letters)
    assert vm.run(f"printf %s {text} | sha256sum").startswith(hashlib.sha256(text.encode()).hexdigest())


def test_much_output_arrives_complete_and_in_order(boot: Boot) -> None:
    vm = boot()
    assert vm.run("seq 5000").split() == [str(i) for i in range(1, 5_001)]
