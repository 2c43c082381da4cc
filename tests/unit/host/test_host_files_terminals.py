"""Files that users name may be terminals; one that became ours would end us when it is closed.

As the console of a VMM that the jailer has made a daemon: it leads a session, and has no terminal.
"""

import os
import pty
import subprocess
import sys

import pytest

OPENERS = {
    "the console": "from hibana.host.serial_output import open_serial_file as open_it",
    "a drive": "from hibana.config.host_file import open_host_file as open_it; flags = [os.O_RDWR]",
    "a kernel": "from hibana.config.host_file import open_host_file as open_it; flags = [os.O_RDONLY]",
    "a log": "from hibana.observe.sink import Sink; open_it = Sink.open",
    "a configuration": "from hibana.whole_file import open_for_reading as open_it",
}
SCRIPT = """
import os, sys
flags = []
{opener}
os.setsid()
kept = open_it(sys.argv[1], *flags)
try:
    os.open("/dev/tty", os.O_RDWR)
    print("it is ours")
except OSError:
    print("it is not")
"""


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
def test_a_terminal_that_is_opened_does_not_become_ours(opener: str) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-c", SCRIPT.format(opener=opener), os.ttyname(slave)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    os.close(slave)
    os.close(master)
    assert said == "it is not\n"
