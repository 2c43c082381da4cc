"""CPUID executed on the host's own CPU."""

import os
import shutil
import subprocess

import pytest

from hibana.engine.kvm.host_cpuid import CODE, SOURCE, execute, vendor_of


@pytest.mark.skipif(shutil.which("as") is None, reason="the assembler is not installed")
def test_the_machine_code_is_what_its_source_says(tmp_path: "os.PathLike[str]") -> None:
    file = os.path.join(tmp_path, "execute")
    subprocess.run(["as", "--64", "-o", f"{file}.o"], input=SOURCE, text=True, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", f"{file}.o", file], check=True)
    with open(file, "rb") as assembled:
        assert assembled.read() == CODE


def test_the_cpu_is_the_one_that_the_kernel_lists() -> None:
    with open("/proc/cpuinfo") as file:
        facts = dict(line.rstrip("\n").split("\t: ", 1) for line in file if "\t: " in line)
    facts = {name.strip(): value for name, value in facts.items()}
    assert vendor_of(execute).decode() == facts["vendor_id"]
    signature, *_ = execute(1, 0)
    assert signature & 0xF == int(facts["stepping"])
    family = signature >> 8 & 0xF
    assert family + (signature >> 20 & 0xFF if family == 0xF else 0) == int(facts["cpu family"])


def test_the_second_question_needs_its_index() -> None:
    highest, *_ = execute(0, 0)
    assert highest >= 7
    assert execute(0x7, 0) != execute(0x7, 0x12345678)
