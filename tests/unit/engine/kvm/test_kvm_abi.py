"""Our declarations of the kernel's interface are the kernel's."""

import os
import shutil

import pytest

from hibana.engine.kvm import abi
from hibana.errors import EngineError
from tests.unit.engine.kvm import kernel_headers


def test_every_request_record_and_constant_is_what_a_compiler_made_of_the_headers() -> None:
    with open(kernel_headers.TABLE) as file:
        assert kernel_headers.parse(file.read()) == kernel_headers.expected()


def test_the_headers_of_this_machine_say_the_same() -> None:
    if not shutil.which("gcc") or not os.path.exists(kernel_headers.HEADER):
        pytest.skip(f"gcc or {kernel_headers.HEADER} is not installed")
    assert kernel_headers.parse(kernel_headers.print_table()) == kernel_headers.expected()


def test_a_failed_request_is_named() -> None:
    with open(os.devnull) as file, pytest.raises(EngineError, match=r"^Kvm error: KVM_GET_API_VERSION: Not a tty"):
        abi.call(file.fileno(), abi.KVM_GET_API_VERSION)


def test_a_failed_request_with_a_large_number_is_named() -> None:
    with open(os.devnull) as file, pytest.raises(EngineError, match=r"^Kvm error: KVM_SET_TSS_ADDR: Not a tty"):
        abi.call_with_address(file.fileno(), abi.KVM_SET_TSS_ADDR, 0xFFFBD000)


def test_a_request_that_has_no_name_here_is_shown_as_a_number() -> None:
    assert abi.name_of(0xAEFF) == "0xaeff"
