"""The commands of `tools/devtool`, in a table; each is a module of this package with `main(arguments) -> exit code`."""

import importlib
import sys
from collections.abc import Mapping
from typing import Final

from tools.dev.say import Failure, say

COMMANDS: Final[Mapping[str, str]] = {
    "run": "boot a microVM: a shell on a terminal; with `-- CMD…` run that, and exit with its code",
    "build": "make the programs in build/bin (--standalone: a folder that needs no Python)",
    "guest": "make kernels and initramfs images in build/guest (--update: from the newest Debian packages)",
    "test": "style, types and all tests; arguments go to pytest",
    "bench": "measure: `bench boot`, `startup`, `devices`, `guest-io`, `kvmboot`, `lock` [--n N] [--json]",
    "kvmbox": "a shell where KVM works, inside an emulated machine; with `-- CMD…` run that",
    "fmt": "format the Python files",
    "checkstyle": "check formatting, lint and types",
    "checkenv": "say what this machine can do, and what is missing",
    "shell": "a shell in which build/bin and build/venv are on the PATH",
    "lock": "write the lock files anew, with the newest packages",
    "distclean": "delete build/",
    "help": "this text",
}


def main(arguments: list[str]) -> int:
    """Run one command."""
    name = arguments[0] if arguments else "help"
    if name in ("help", "--help", "-h"):
        return _help()
    if name not in COMMANDS:
        say(f"Unknown command: {name}. Please use `tools/devtool help` for help.")
        return 1
    try:
        code: int = importlib.import_module(f"tools.dev.{name}").main(arguments[1:])
    except Failure as failure:
        say(f"devtool: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _help() -> int:
    print("tools/devtool COMMAND [ARGUMENTS]\n")
    for name, what in COMMANDS.items():
        print(f"  {name:<11} {what}")
    print("\nWhat a command needs is installed on the way; everything it makes is below build/.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
