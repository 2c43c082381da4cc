"""The fingerprint of a host."""

import json
import os

import pytest

from hibana import FIRECRACKER_VERSION
from hibana.cpu_templates import fingerprint
from hibana.cpu_templates.fingerprint import FIELDS, Fingerprint
from hibana.cpu_templates.render import pretty, template_of
from hibana.engine.state import CpuidEntry
from hibana.errors import FingerprintSourceError
from hibana.serde.records import decode

CPU = template_of([CpuidEntry(1, 0, 0, 0b11, 0, 0, 0)], {0x8B: 1})
OTHER = template_of([CpuidEntry(1, 0, 0, 0b10, 0, 0, 0)], {0x8B: 1})


def of(**parts: object) -> Fingerprint:
    values: dict[str, object] = dict.fromkeys(FIELDS, "same") | {"guest_cpu_config": CPU} | parts
    return Fingerprint(**values)  # type: ignore[arg-type]  # the table of fields has no types


def test_it_says_where_it_was_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: "os.PathLike[str]") -> None:
    for name, content in (("bios_version", "1.0\n"), ("bios_release", "4.2\n")):
        with open(os.path.join(tmp_path, name), "w") as file:
            file.write(content)
    cpuinfo = os.path.join(tmp_path, "cpuinfo")
    with open(cpuinfo, "w") as file:
        file.write("processor\t: 0\nmicrocode\t: 0x5003006\n\nprocessor\t: 1\nmicrocode\t: 0x1\n")
    monkeypatch.setattr(fingerprint, "_DMI", str(tmp_path))
    monkeypatch.setattr(fingerprint, "_CPUINFO", cpuinfo)
    assert fingerprint.take(CPU) == Fingerprint(
        firecracker_version=FIRECRACKER_VERSION,
        kernel_version=os.uname().release,
        microcode_version="0x5003006",
        bios_version="1.0",
        bios_revision="4.2",
        guest_cpu_config=CPU,
    )


def test_a_host_without_firmware_tables_has_a_fingerprint_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: "os.PathLike[str]"
) -> None:
    monkeypatch.setattr(fingerprint, "_DMI", os.path.join(tmp_path, "nowhere"))
    taken = fingerprint.take(CPU)
    assert (taken.bios_version, taken.bios_revision) == ("", "")


def test_a_source_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: "os.PathLike[str]") -> None:
    monkeypatch.setattr(fingerprint, "_CPUINFO", str(tmp_path))
    with pytest.raises(FingerprintSourceError) as caught:
        fingerprint.take(CPU)
    assert str(caught.value) == f"Failed to read {tmp_path}: Is a directory (os error 21)"


def test_what_is_written_reads_the_same() -> None:
    taken = fingerprint.take(CPU)
    assert decode(pretty(fingerprint.file_form(taken)), Fingerprint) == taken


def test_equal_fingerprints_have_no_differences() -> None:
    assert fingerprint.differences(of(), of(), list(FIELDS)) == []


def test_each_difference_is_an_object_with_both_sides() -> None:
    before, after = of(kernel_version="5.10", bios_version="1"), of(kernel_version="6.1", bios_version="2")
    found = fingerprint.differences(before, after, list(FIELDS))
    assert [json.loads(text) for text in found] == [
        {"name": "kernel_version", "prev": "5.10", "curr": "6.1"},
        {"name": "bios_version", "prev": "1", "curr": "2"},
    ]
    assert found[0] == '{\n  "name": "kernel_version",\n  "prev": "5.10",\n  "curr": "6.1"\n}'


def test_only_the_fields_that_are_asked_for_count() -> None:
    assert fingerprint.differences(of(kernel_version="5.10"), of(), ["bios_version", "guest_cpu_config"]) == []


def test_of_two_cpus_only_the_difference_is_shown() -> None:
    (text,) = fingerprint.differences(of(), of(guest_cpu_config=OTHER), ["guest_cpu_config"])
    found = json.loads(text)
    assert [found[side]["cpuid_modifiers"][0]["modifiers"] for side in ("prev", "curr")] == [
        [{"register": "eax", "bitmap": "0b" + "x" * 31 + "1"}],
        [{"register": "eax", "bitmap": "0b" + "x" * 31 + "0"}],
    ]
    assert found["prev"]["msr_modifiers"] == []
