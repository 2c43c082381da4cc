"""A guest that runs wild: whatever it executes, the VMM answers, can be stopped, and ends only in documented ways."""

import os
import random
import struct
from pathlib import Path

import pytest

from tests.guest.conftest import Boot

SEEDS = int(os.environ.get("HIBANA_WILD_SEEDS", "20"))  # the nightly run sets 200
ENTRY = 0x100_0000
CODE_SIZE = 64 << 10
DOCUMENTED_EXIT_CODES = {0, 1}  # a reset; a triple fault or an access nobody can emulate


def kernel_of(code: bytes) -> bytes:
    """Wrap code into the smallest ELF file that the loader takes: one segment, loaded and entered at 16 MiB."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, ENTRY, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 120, ENTRY, ENTRY, len(code), len(code), 1)
    return header + segment + code


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_code_never_takes_the_vmm_with_it(boot: Boot, tmp_path: Path, seed: int) -> None:
    kernel = tmp_path / "wild"
    kernel.write_bytes(kernel_of(random.Random(seed).randbytes(CODE_SIZE)))
    vm = boot(kernel=kernel, mem=128, shell=False)
    try:
        assert vm.api.get_instance_info().state == "Running"
        vm.api.pause_vm()
        vm.api.resume_vm()
        assert vm.api.get_version().firecracker_version
    except OSError:
        assert vm.exit_code in DOCUMENTED_EXIT_CODES
    assert "Traceback" not in vm.console.text + vm.vmm.log.read_text()
