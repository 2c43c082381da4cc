"""The boot source: files held open, the command line's length."""

import os
from pathlib import Path

import pytest

from hibana.config.boot_source import DEFAULT_BOOT_ARGS, BootSource, BootSourceConfig
from hibana.errors import (
    InitrdFileError,
    InvalidCmdline,
    KernelFileError,
)


def test_a_boot_source_holds_its_files_open(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    source = BootSource(BootSourceConfig(str(kernel), str(initrd)))
    kernel.unlink()
    assert os.pread(source.kernel_fd, 9, 0) == b"kernel"
    assert source.initrd_fd is not None
    assert os.pread(source.initrd_fd, 9, 0) == b"initrd"
    source.close()


def test_absent_boot_args_are_the_default_and_empty_ones_are_not(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.touch()
    for given_args, used in ((None, DEFAULT_BOOT_ARGS), ("", ""), ("quiet", "quiet")):
        source = BootSource(BootSourceConfig(str(kernel), boot_args=given_args))
        assert source.boot_args == used
        source.close()


def test_a_boot_source_says_which_file_is_missing(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    with pytest.raises(KernelFileError, match=r"^The kernel file cannot be opened: No such file or directory \(os err"):
        BootSource(BootSourceConfig(str(kernel)))
    kernel.touch()
    with pytest.raises(InitrdFileError, match=r"invalid permissions\. No such file or directory \(os error 2\)$"):
        BootSource(BootSourceConfig(str(kernel), "/nowhere"))


def test_a_command_line_of_2047_bytes_fits_and_one_more_does_not(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.touch()
    BootSource(BootSourceConfig(str(kernel), boot_args="x" * 2047)).close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidCmdline, match=r"^The kernel command line is invalid: Invalid cmdline cap"):
        BootSource(BootSourceConfig(str(kernel), boot_args="é" * 1024))
    assert len(os.listdir("/proc/self/fd")) == before, "the kernel file is closed again"
