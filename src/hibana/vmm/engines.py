"""Which engine runs the guest: the one asked for, or the best that works here."""

import os
from typing import TYPE_CHECKING, Final

from hibana.errors import EngineError, UnknownEngine
from hibana.observe import log

if TYPE_CHECKING:  # the name of the engine is checked before the API socket exists; all this would come with it
    from hibana.engine.interface import Engine

CHOICES: Final = ("auto", "kvm", "soft")
_MODULES: Final = {"kvm": "hibana.engine.kvm.engine", "soft": "hibana.engine.soft.engine"}


def wanted_engine(option: str | None) -> str:
    """Name the engine that the command line or `HIBANA_ENGINE` asks for. Raises UnknownEngine."""
    name = option or os.environ.get("HIBANA_ENGINE") or "auto"
    if name not in CHOICES:
        raise UnknownEngine(name=name, choices=", ".join(CHOICES))
    return name


def choose_engine(name: str) -> "Engine":
    """Open the engine called `name`, and say so; `auto` takes what works here. Raises EngineError with the reason."""
    engine, why = select(name)
    log.info(f"Running guest code on the {engine.name} engine: {why}")
    if name == "kvm":
        _warn_of_emulation()
    return engine


def select(name: str) -> "tuple[Engine, str]":
    """Open an engine; give it, and the reason why it is this one. Raises EngineError.

    An engine is imported only when it comes into question: they are the largest part of the program.
    """
    if name == "kvm":
        return _kvm_asked_for()
    if name == "soft":
        return _soft("it was asked for.")
    from hibana.engine.kvm.engine import KvmEngine

    kvm = KvmEngine()
    if reason := kvm.missing() or kvm.emulates():
        return _soft(reason)
    return kvm, "the host runs it at the speed of its CPU."


def _kvm_asked_for() -> "tuple[Engine, str]":
    from hibana.engine.kvm.engine import KvmEngine

    engine = KvmEngine()
    if reason := engine.missing():
        raise EngineError(cause=f"The kvm engine cannot run here: {reason} Use --engine soft, or leave --engine out.")
    return engine, "it was asked for."


def _warn_of_emulation() -> None:
    from hibana.engine.kvm.engine import KvmEngine

    if reason := KvmEngine().emulates():
        log.warn(f"The soft engine would be faster here: {reason}")


def _soft(why: str) -> "tuple[Engine, str]":
    from hibana.engine.soft.engine import SoftEngine

    engine = SoftEngine()
    if reason := engine.missing():
        raise EngineError(cause=f"The soft engine cannot run here: {reason}")
    return engine, why


def preload(name: str) -> None:
    """Load what the engines that `name` may choose from need of the host's files, for a process that will see none."""
    if name != "kvm":
        from hibana.engine.soft import library

        library.preload()


def modules(name: str) -> list[str]:
    """Name the modules that choosing an engine imports."""
    return [module for engine, module in _MODULES.items() if name in ("auto", engine)]
