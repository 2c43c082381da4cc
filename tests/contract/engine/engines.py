"""Where the engines are, for tests and for the child processes of tests."""

import importlib
import importlib.util
from typing import Final

from hibana.engine.interface import Engine

ENGINES: Final = {
    "kvm": ("hibana.engine.kvm.engine", "KvmEngine"),
    "soft": ("hibana.engine.soft.engine", "SoftEngine"),
}


def find(name: str) -> tuple[Engine | None, str]:
    """Give an engine that can run here, or the reason why there is none."""
    module, member = ENGINES[name]
    if not _exists(module):
        return None, f"the {name} engine does not exist yet"
    engine: Engine = getattr(importlib.import_module(module), member)()
    reason = engine.missing()
    return (None, reason) if reason else (engine, "")


def emulates(name: str) -> bool:
    """Tell whether an engine only hands guest code to an emulator in the kernel (a PVM flavour of KVM)."""
    if name != "kvm":
        return False
    from hibana.engine.kvm import probe

    return probe.measure().emulates


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False
