"""The start-up self-check accepts the engine, and finds out one that lacks a single repair."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from hibana.engine.soft import machine_code, relocations, selfcheck
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.fast import switch
from hibana.engine.soft.fast.switch import Accelerations
from hibana.engine.soft.offsets import CC, CPU, UC
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.slots import SLOTS
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory
from tests.contract.engine.harness import GuestBus


@pytest.fixture
def processor(engine: SoftEngine, memory: GuestMemory) -> Iterator[Processor]:
    """Give a processor with RAM, as the self-check finds it."""
    processor = Processor()
    processor.map_ram(memory)
    yield processor
    processor.close()


def test_a_good_engine_passes_and_memory_is_as_before(processor: Processor, memory: GuestMemory) -> None:
    content = bytes(range(256)) * 256
    memory.write(0, content)
    assert selfcheck.broken(processor, memory) == ""
    assert memory.read(0, len(content)) == content


def test_the_check_leaves_the_processor_as_after_reset(processor: Processor, memory: GuestMemory) -> None:
    assert selfcheck.broken(processor, memory) == ""
    assert processor.new_image().raw == processor.reset_image.raw
    assert processor.code.byte("wanted_exit").value == processor.code.byte("wanted_interrupt").value == 0


def _kicks_between_instructions(processor: Processor, memory: GuestMemory) -> None:
    ctypes.c_uint8.from_address(processor.handle + UC.no_exit_request).value = 0


def _undefined_instructions_end_the_run(processor: Processor, memory: GuestMemory) -> None:
    always = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint64, ctypes.c_int)(lambda uc, vector: vector == 6)
    processor._callbacks.append(always)
    pointer = ctypes.cast(always, ctypes.c_void_p).value or 0
    ctypes.c_uint64.from_address(processor.handle + UC.stop_interrupt).value = pointer


def _interrupts_are_left_to_the_library(processor: Processor, memory: GuestMemory) -> None:
    classes = ctypes.c_uint64.from_address(processor.cpu + CPU.cc).value
    never = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint64, ctypes.c_int)(lambda cpu, request: False)
    processor._callbacks.append(never)
    pointer = ctypes.cast(never, ctypes.c_void_p).value or 0
    ctypes.c_uint64.from_address(classes + CC.cpu_exec_interrupt).value = pointer


def _nobody_hears_of_host_writes(processor: Processor, memory: GuestMemory) -> None:
    memory.on_write = lambda addr, size: None


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_kicks_between_instructions, "interrupting the guest repeats or loses instructions"),
        (_undefined_instructions_end_the_run, "an undefined instruction does not reach the guest"),
        (_interrupts_are_left_to_the_library, "an interrupt does not arrive after STI"),
        (_nobody_hears_of_host_writes, "code that a device changes is not noticed"),
    ],
)
def test_an_engine_that_lacks_a_repair_is_refused(
    spoil: Callable[[Processor, GuestMemory], None], sentence: str, processor: Processor, memory: GuestMemory
) -> None:
    spoil(processor, memory)
    assert selfcheck.broken(processor, memory) == sentence


def _with_own(function: str, memory: GuestMemory) -> str:
    """Run the check on a machine for which one function of the library is its own again."""
    library, _ = machine_code.load()
    switch.load()
    slots = SLOTS[function]
    before = [ctypes.c_uint64.from_address(library.base + offset).value for offset, _ in slots]
    relocations.redirect(library.base, slots, library.address(function))
    try:
        processor = Processor()
        processor.map_ram(memory)
        try:
            return selfcheck.broken(processor, memory)
        finally:
            processor.close()
    finally:
        for slot, target in zip(slots, before, strict=True):
            relocations.redirect(library.base, (slot,), target)


ALIAS_UNSEEN: Final = "code that changes through another mapping is not noticed"
FLAGS_LOST: Final = "flags do not survive LOOPNE and CMPXCHG16B"
REWRITE_UNSEEN: Final = "code that rewrites code is not noticed"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("helper_syscall", "SYSCALL does not save the user's registers"),
        ("tlb_set_dirty", REWRITE_UNSEEN),
        ("gen_new_label", FLAGS_LOST),
        ("tcg_gen_callN", FLAGS_LOST),
    ],
)
def test_an_engine_with_the_librarys_own_function_is_found_out(
    function: str, sentence: str, engine: SoftEngine, memory: GuestMemory
) -> None:
    assert _with_own(function, memory) == sentence


@pytest.mark.parametrize(
    ("unit", "function", "sentence"),
    [
        ("dirty", "tlb_protect_code", ALIAS_UNSEEN),
        ("global-pages", "tlb_set_page_with_attrs", "a write of CR3 leaves old mappings behind"),
    ],
)
def test_an_acceleration_that_lacks_a_part_is_found_out(
    unit: str, function: str, sentence: str, engine: SoftEngine, memory: GuestMemory
) -> None:
    if unit not in switch.load().names:
        pytest.skip(f"{unit} is switched off")
    assert _with_own(function, memory) == sentence


def test_an_engine_that_fails_is_refused(
    engine: SoftEngine, memory: GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfcheck, "broken", lambda processor, memory: "HLT does not halt")
    monkeypatch.setattr(Accelerations, "names", ())
    with pytest.raises(EngineError, match="failed its self-check on this host: HLT does not halt"):
        engine.create_vm(memory, 1, GuestBus(lambda value: None))
