"""What a jailed process does not take along."""

import subprocess
import sys

SCRIPT = """
import ctypes, os, posix, time
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_void_p
address = libc.getenv(b"SECRET")
os.environ["LATER"] = "later"
from hibana.jail.privileges import forget_environment
forget_environment()
print(dict(os.environ), posix.environ, ctypes.string_at(address, 6), libc.getenv(b"SECRET"), libc.getenv(b"LATER"))
"""


def test_the_environment_is_forgotten_and_overwritten() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], env={"SECRET": "secret", "PYTHONPATH": "src"},
                          check=True, capture_output=True, text=True)  # fmt: skip
    assert done.stdout == f"{{}} {{}} {bytes(6)!r} None None\n"


def test_an_empty_environment_is_no_trouble() -> None:
    script = f"import sys; sys.path.insert(0, 'src'){SCRIPT.replace('ctypes.string_at(address, 6)', '0')}"
    done = subprocess.run([sys.executable, "-c", script], env={}, check=True, capture_output=True, text=True)
    assert done.stdout == "{} {} 0 None None\n"
