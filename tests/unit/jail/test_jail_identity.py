"""A process that seems to be another program."""

import subprocess
import sys

from hibana.jail import identity

SCRIPT = """
from hibana.jail.identity import appear_as, read_memory_map
appear_as(["/some-long-program-name", "--id", "x" * 5000, ""], read_memory_map())
for name in ("comm", "cmdline", "environ"):
    print(repr(open(f"/proc/self/{name}").read()))
"""


def test_a_process_takes_a_name_and_a_command_line() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    name, words, environment = done.stdout.splitlines()
    assert name == repr("some-long-progr\n")
    if words.startswith("'/some"):
        assert words == repr("\0".join(["/some-long-program-name", "--id", "x" * 5000, "", ""]))
        assert environment == "''"


def test_the_kernel_says_where_the_environment_lies() -> None:
    memory = identity.read_memory_map()
    assert 0 < memory.env_start <= memory.env_end
    assert memory.start_code < memory.end_code
