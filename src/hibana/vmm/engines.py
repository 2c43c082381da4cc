"""Which engine runs the guest: the one asked for, or the best that works here."""

import os
from typing import TYPE_CHECKING, Final

from hibana.errors import EngineError, UnknownEngine
from hibana.observe import log

if TYPE_CHECKING:  # the name of the engine is checked before the API socket exists; all this would come with it
    from hibana.engine.interface import Engine

CHOICES: Final = ("auto", "kvm", "soft")


def wanted_engine(option: str | None) -> str:
    """Name the engine that the command line or `HIBANA_ENGINE` asks for. Raises UnknownEngine."""
    name = option or os.environ.get("HIBANA_ENGINE") or "auto"
    if name not in CHOICES:
        raise UnknownEngine(name=name, choices=", ".join(CHOICES))
    return name


def choose_engine(name: str) -> "Engine":
    """Open the engine called `name`; `auto` takes what works here. Raises EngineError with the reason.

    An engine is imported only when it comes into question: they are the largest part of the program.
    """
    if name == "kvm":
        return _kvm_asked_for()
    if name == "soft":
        return _soft("it was asked for.")
    from hibana.engine.kvm.engine import KvmEngine

    kvm = KvmEngine()
    reason = kvm.missing() or kvm.emulates()
    if reason:
        return _soft(reason)
    log.info("Running guest code on the kvm engine: the host runs it at the speed of its CPU.")
    return kvm


def _kvm_asked_for() -> "Engine":
    from hibana.engine.kvm.engine import KvmEngine

    engine = KvmEngine()
    if reason := engine.missing():
        raise EngineError(cause=f"The kvm engine cannot run here: {reason} Use --engine soft, or leave --engine out.")
    log.info("Running guest code on the kvm engine: it was asked for.")
    if reason := engine.emulates():
        log.warn(f"The soft engine would be faster here: {reason}")
    return engine


def _soft(why: str) -> "Engine":
    from hibana.engine.soft.engine import SoftEngine

    engine = SoftEngine()
    if reason := engine.missing():
        raise EngineError(cause=f"The soft engine cannot run here: {reason}")
    log.info(f"Running guest code on the soft engine: {why}")
    return engine
