"""The start-up self-check accepts the engine, and refuses one whose every single repair is undone."""

import ctypes
from collections.abc import Callable, Iterator

import pytest

from hibana.engine.soft import machine_code, relocations, selfcheck
from hibana.engine.soft.engine import SoftEngine
from hibana.engine.soft.offsets import CC, CPU, UC
from hibana.engine.soft.processor import Processor
from hibana.engine.soft.slots import SLOTS
from hibana.errors import EngineError
from hibana.memory.guest import GuestMemory


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
    selfcheck.check(processor, memory)
    assert memory.read(0, len(content)) == content


def test_the_check_leaves_the_processor_as_after_reset(processor: Processor, memory: GuestMemory) -> None:
    selfcheck.check(processor, memory)
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
    with pytest.raises(EngineError, match=f"failed its self-check on this host: {sentence}"):
        selfcheck.check(processor, memory)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("helper_syscall", "SYSCALL does not save the user's registers"),
        ("tlb_reset_dirty_by_vaddr", "code that changes through another mapping is not noticed"),
    ],
)
def test_an_engine_with_the_librarys_own_function_is_refused(
    function: str, sentence: str, engine: SoftEngine, memory: GuestMemory
) -> None:
    """The slot is led back to the library before a machine is made, and to the thunk afterwards."""
    library, code = machine_code.load()
    relocations.redirect(library.base, SLOTS[function], library.address(function))
    try:
        processor = Processor()
        processor.map_ram(memory)
        try:
            with pytest.raises(EngineError, match=sentence):
                selfcheck.check(processor, memory)
        finally:
            processor.close()
    finally:
        relocations.redirect(library.base, SLOTS[function], code.entry(function))
