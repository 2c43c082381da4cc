"""`seccompiler-bin`: files in, files out, and a sentence for whatever is wrong (operations.md §4.4)."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hibana.cli.seccompiler import entry, main
from hibana.errors import VmmError
from hibana.seccomp import bpf, container
from hibana.seccomp.builtin import FILTERS
from hibana.seccomp.compiler import ARCHITECTURES, compile_filter
from hibana.seccomp.policy import parse
from tests.unit.seccomp.kernel import Call, run
from tests.unit.seccomp.own import FILES
from tests.unit.seccomp.policies import SHARED, needs_reference

READ_FIVE: dict[str, Any] = {
    "default_action": {"errno": 1},
    "filter_action": "allow",
    "filter": [{"syscall": "read", "args": [{"index": 0, "type": "dword", "op": "eq", "val": 5}]}],
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def policy(content: object) -> str:
    Path("policy.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return "policy.json"


def refusal(*words: str) -> str:
    with pytest.raises(VmmError) as refused:
        main(words)
    return str(refused.value)


@pytest.mark.parametrize("words", [("-t", "x86_64", "-i"), ("--target-arch=X86_64", "--input-file")])
def test_all_categories_come_into_one_file(words: tuple[str, ...]) -> None:
    main([*words, policy({"one": READ_FIVE, "Two": READ_FIVE})])
    programs = container.read(Path("seccomp_binary_filter.out").read_bytes())
    assert programs.keys() == {"one", "Two"}
    for code, default in programs.values():
        assert default == bpf.ERRNO | 1
        assert run(bpf.unpack(code), Call(0, (5, 0, 0, 0, 0, 0))) == bpf.ALLOW
        assert run(bpf.unpack(code), Call(0, (6, 0, 0, 0, 0, 0))) == bpf.ERRNO | 1


def test_basic_ignores_arguments() -> None:
    main(["-t", "x86_64", "-i", policy({"one": READ_FIVE}), "--basic", "-o", "out"])
    code, _ = container.read(Path("out").read_bytes())["one"]
    assert run(bpf.unpack(code), Call(0, (6, 0, 0, 0, 0, 0))) == bpf.ALLOW


def test_a_category_may_have_a_file_of_its_own_for_other_programs(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    main(["-t", "aarch64", "-i", policy({"one": READ_FIVE, "two": READ_FIVE}), "--split-output", "-o", "folder/any"])
    assert sorted(os.listdir("folder")) == ["one.bpf", "two.bpf"]
    wanted = parse(json.dumps({"one": READ_FIVE}).encode())["one"]
    expected = bpf.pack(compile_filter(wanted, ARCHITECTURES["aarch64"]))
    assert Path("folder/one.bpf").read_bytes() == expected


@needs_reference
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_references_policies_compile(architecture: str) -> None:
    main(["-t", architecture, "-i", str(SHARED / f"{architecture}-unknown-linux-musl.json"), "-o", "out"])
    assert container.read(Path("out").read_bytes()).keys() == {"vmm", "api", "vcpu"}


@pytest.mark.parametrize(("architecture", "engine"), FILES)
def test_our_own_policies_compile_to_our_own_filters(architecture: str, engine: str) -> None:
    main(["-t", architecture, "-i", str(FILES[architecture, engine]), "-o", "out"])
    assert Path("out").read_bytes() == FILTERS[architecture][engine]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[]", "invalid type: sequence, expected a map at line 1 column 0"),
        ({"a": {}}, "missing field `default_action` at line 1 column 8"),
        (
            {"a": READ_FIVE | {"default_action": "kill"}},
            "unknown variant `kill`, expected one of `allow`, `errno`, `kill_thread`, `kill_process`, `log`, `trace`,"
            " `trap` at line 1 column 31",
        ),
        (
            {"a": READ_FIVE | {"default_action": "errno"}},
            "invalid type: unit variant, expected newtype variant at line 1 column 32",
        ),
        (
            {"a": READ_FIVE | {"default_action": {"errno": 65536}}},
            "invalid value: integer `65536`, expected u16 at line 1 column 40",
        ),
        ({"a": READ_FIVE | {"filter": [{}]}}, "missing field `syscall` at line 1 column 78"),
    ],
)
def test_what_is_not_a_policy_is_refused_in_serdes_words(content: object, sentence: str) -> None:
    assert refusal("-t", "x86_64", "-i", policy(content)).startswith("Cannot deserialize json: ")
    assert refusal("-t", "x86_64", "-i", policy(content)) == f"Cannot deserialize json: {sentence}"


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"syscall": "frobnicate"}, "Cannot add libseccomp syscall"),
        (
            {"syscall": "read", "args": [{"index": 6, "type": "dword", "op": "eq", "val": 5}]},
            "Cannot add libseccomp syscall rule",
        ),
    ],
)
def test_rules_that_cannot_be_are_refused(rule: dict[str, Any], sentence: str) -> None:
    assert refusal("-t", "x86_64", "-i", policy({"a": READ_FIVE | {"filter": [rule]}})) == sentence


def test_files_and_targets_that_are_not_there_are_named() -> None:
    missing = "No such file or directory (os error 2)"
    assert refusal("-t", "x86_64", "-i", "nowhere") == f"Cannot open input file: {missing}"
    assert refusal("-t", "x86_64", "-i", ".") == "Cannot read input file: Is a directory (os error 21)"
    assert refusal("-t", "x86_64", "-i", "/dev/zero") == "Cannot read input file: File too large (os error 27)"
    assert refusal("-t", "riscv64", "-i", policy({})) == "Cannot parse arch: riscv64"
    assert refusal("-t", "x86_64", "-i", policy({}), "-o", "no/where") == f"Cannot create output file: {missing}"


def test_a_file_that_the_vmm_would_not_take_is_not_written() -> None:
    rules = [{"syscall": "ioctl", "args": [{"index": 1, "type": "qword", "op": "gt", "val": n}]} for n in range(3000)]
    content = policy({"a": READ_FIVE | {"filter": rules}})
    assert refusal("-t", "x86_64", "-i", content, "-o", "out") == "Serialized BPF exceeds size limit of 100000 bytes"
    assert not Path("out").exists()


def test_the_program_ends_with_its_sentence(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["seccompiler-bin", "-t", "x86_64", "-i", "nowhere"])
    with pytest.raises(SystemExit) as end:
        entry()
    assert end.value.code == 1
    assert capfd.readouterr().err == "Error: Cannot open input file: No such file or directory (os error 2)\n"


@pytest.mark.parametrize("words", [[], ["-t", "x86_64"], ["-t", "x86_64", "-i", "f", "--frob"], ["--split"]])
def test_a_command_line_that_makes_no_sense_ends_with_two(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: seccompiler-bin" in capfd.readouterr().err
