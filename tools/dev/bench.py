"""`bench NAME`: run one of the benchmarks of tools/bench."""

import importlib
from collections.abc import Sequence
from typing import Final

from tools.dev.say import Failure

NAMES: Final = ("boot", "devices", "guest-io", "kvmboot", "lock", "startup")


def main(arguments: Sequence[str]) -> int:
    """Hand over to the benchmark."""
    if not arguments or arguments[0] not in NAMES:
        raise Failure(f"bench: which one? {', '.join(NAMES)}")
    code: int = importlib.import_module(f"tools.bench.{arguments[0].replace('-', '_')}").main(arguments[1:])
    return code
