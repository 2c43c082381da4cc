"""`cpu-template-helper`: commands, files, sentences and exit codes. What a vCPU shows is a list of the test's."""

import json
import os
import sys
from typing import Any

import pytest

from hibana.cli import cpu_template_helper
from hibana.cli.cpu_template_helper import entry
from hibana.config.cpu import CustomCpuTemplate
from hibana.config.machine import MachineConfig
from hibana.cpu_templates.render import template_of
from hibana.engine.state import CpuidEntry
from hibana.errors import EngineError
from hibana.observe import log

FEATURES = 0b1010


class Tool:
    """A folder, a program that is started in it, and what the program asked of the microVM."""

    def __init__(self, folder: str, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capfd = capfd
        self.asked: list[tuple[MachineConfig, Any]] = []
        patch.chdir(folder)
        patch.setattr(cpu_template_helper, "dump", self._dump)
        patch.setattr(log, "configure", lambda level: None)  # the tests' own log stays as it is

    def _dump(self, machine: MachineConfig, template: Any) -> CustomCpuTemplate:
        self.asked.append((machine, template))
        return template_of([CpuidEntry(1, 0, 0, FEATURES, 0, 0, 0)], {0x8B: 7})

    def run(self, *words: str) -> tuple[int, str]:
        """Give the exit code and what is said on stderr."""
        self._patch.setattr(sys, "argv", ["cpu-template-helper", *words])
        try:
            entry()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = self._capfd.readouterr()
        return code, captured.err if code else captured.out + captured.err

    def write(self, name: str, content: object) -> str:
        with open(name, "w") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return name

    def read(self, name: str) -> Any:
        with open(name) as file:
            return json.load(file)


@pytest.fixture
def tool(tmp_path: "os.PathLike[str]", monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tool:
    return Tool(os.fspath(tmp_path), monkeypatch, capfd)


def template(bitmap: str) -> dict[str, Any]:
    modifiers = [{"register": "eax", "bitmap": bitmap}]
    return {"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": modifiers}]}


# --- template ---------------------------------------------------------------------------------------------------------


def test_dump_needs_nothing_and_says_nothing(tool: Tool) -> None:
    assert tool.run("template", "dump") == (0, "")
    written = tool.read("cpu_config.json")
    assert [msr["addr"] for msr in written["msr_modifiers"]] == ["0x8b"]
    assert len(written["cpuid_modifiers"][0]["modifiers"]) == 4
    assert tool.asked == [(MachineConfig(vcpu_count=1, mem_size_mib=128), None)]


def test_dump_takes_machine_and_template_from_the_configuration(tool: Tool) -> None:
    tool.write("kernel", "")
    machine = {"vcpu_count": 4, "mem_size_mib": 256, "smt": True, "cpu_template": "T2"}
    config = {
        "boot-source": {"kernel_image_path": "kernel"},
        "drives": [],
        "machine-config": machine,
        "logger": {"log_path": "/nowhere/log"},
        "metrics": {"metrics_path": "/nowhere/metrics"},
    }
    assert tool.run("template", "dump", "-c", tool.write("config", config), "--output=out") == (0, "")
    ((asked, chosen),) = tool.asked
    assert (asked.vcpu_count, asked.smt, chosen) == (4, True, "T2")
    assert os.path.exists("out")


def test_a_template_on_the_command_line_beats_the_configurations(tool: Tool) -> None:
    tool.write("kernel", "")
    config = {"boot-source": {"kernel_image_path": "kernel"}, "drives": [], "cpu-config": template("0")}
    words = ("-c", tool.write("config", config), "-t", tool.write("template", template("1")))
    assert tool.run("template", "dump", *words) == (0, "")
    assert tool.run("template", "dump", *words[:2]) == (0, "")
    values = [chosen.cpuid_modifiers[0].modifiers[0].bitmap.value for _, chosen in tool.asked]
    assert values == [1, 0]


def test_strip_writes_beside_its_inputs(tool: Tool) -> None:
    paths = [tool.write("a.json", template("011")), tool.write("b.json", template("010"))]
    assert tool.run("template", "strip", "--paths", *paths) == (0, "")
    written = tool.read("a_stripped.json")["cpuid_modifiers"][0]["modifiers"]
    assert written == [{"register": "eax", "bitmap": "0b" + "x" * 31 + "1"}]
    assert tool.read("b.json") == template("010")


def test_strip_may_overwrite_its_inputs(tool: Tool) -> None:
    paths = [tool.write("a.json", template("011")), tool.write("b.json", template("011"))]
    assert tool.run("template", "strip", "-p", *paths, "-s", "") == (0, "")
    empty: dict[str, list[object]] = {"kvm_capabilities": [], "cpuid_modifiers": [], "msr_modifiers": []}
    assert [tool.read(path) for path in paths] == [empty, empty]


def test_strip_wants_two(tool: Tool) -> None:
    path = tool.write("a.json", template("011"))
    for words in ((), ("-p", path)):
        assert tool.run("template", "strip", *words) == (1, "The number of inputs should be two or more.\n")


def test_verify_says_whether_the_template_has_its_effect(tool: Tool) -> None:
    assert tool.run("template", "verify", "-t", tool.write("good", template("1x10"))) == (0, "")
    assert tool.run("template", "verify") == (0, "")
    code, said = tool.run("template", "verify", "-t", tool.write("bad", template("0x10")))
    assert code == 1
    assert said.startswith("Value for leaf=0x1, subleaf=0x0, flags=0x0, register=eax mismatched.\n* CPU template     :")


# --- fingerprint ------------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_equal_to_itself(tool: Tool) -> None:
    assert tool.run("fingerprint", "dump") == (0, "")
    assert list(tool.read("fingerprint.json")) == [
        "firecracker_version",
        "kernel_version",
        "microcode_version",
        "bios_version",
        "bios_revision",
        "guest_cpu_config",
    ]
    assert tool.run("fingerprint", "compare", "-p", "fingerprint.json", "-c", "fingerprint.json") == (0, "")


def test_a_fingerprint_that_differs_is_described(tool: Tool) -> None:
    tool.run("fingerprint", "dump", "-o", "before.json")
    tool.write("after.json", tool.read("before.json") | {"kernel_version": "0.01", "bios_version": "old"})
    words = ("fingerprint", "compare", "--prev", "before.json", "--curr", "after.json", "--filters")
    code, said = tool.run(*words, "guest_cpu_config", "bios_version")
    assert code == 1
    assert json.loads(said) == {"name": "bios_version", "prev": tool.read("before.json")["bios_version"], "curr": "old"}
    assert tool.run(*words, "guest_cpu_config") == (0, "")


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("template", "dump", "-c", "nowhere"),
            "Failed to operate file: nowhere: No such file or directory (os error 2)",
        ),
        (("template", "dump", "-o", "."), "Failed to operate file: .: Is a directory (os error 21)"),
        (
            ("template", "dump", "-t", "broken"),
            "Failed to serialize/deserialize JSON file: broken: EOF while parsing an object at line 1 column 1",
        ),
        (
            ("template", "dump", "-c", "broken"),
            "Failed to create VmResources: Configuration for VMM from one single json failed: Invalid JSON:"
            " EOF while parsing an object at line 1 column 1",
        ),
        (
            ("fingerprint", "compare", "-p", "empty", "-c", "empty"),
            "Failed to serialize/deserialize JSON file: empty: missing field `firecracker_version` at line 1 column 2",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tool: Tool, words: tuple[str, ...], sentence: str) -> None:
    tool.write("broken", "{")
    tool.write("empty", "{}")
    assert tool.run(*words) == (1, f"{sentence}\n")


def test_a_host_without_kvm_has_nothing_to_show(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(machine: MachineConfig, chosen: object) -> CustomCpuTemplate:
        raise EngineError(cause="no.")

    monkeypatch.setattr(cpu_template_helper, "dump", fail)
    assert tool.run("template", "dump") == (1, "Failed to build microVM: Kvm error: no.\n")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("template",),
        ("templates", "dump"),
        ("template", "dump", "--nonsense"),
        ("template", "dump", "-o"),
        ("fingerprint", "compare", "--prev", "a"),
        ("fingerprint", "compare", "-p", "a", "-c", "b", "-f", "colour"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(tool: Tool, words: tuple[str, ...]) -> None:
    code, said = tool.run(*words)
    assert code == 2
    assert "usage: cpu-template-helper" in said
    assert tool.asked == []


def test_it_knows_its_version(tool: Tool) -> None:
    code, said = tool.run("--version")
    assert code == 0
    assert said.startswith("cpu-template-helper v1.")
