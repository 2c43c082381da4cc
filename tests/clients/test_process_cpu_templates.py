"""CPU templates on the kvm engine: what a client asks for is what the guest's own CPUID and RDMSR answer."""

import json
import subprocess
from collections.abc import Callable
from typing import Any, Final

import pytest

from hibana.engine.kvm.engine import KvmEngine
from hibana.engine.kvm.host_cpuid import execute, vendor_of
from tests.clients.conftest import Start
from tests.clients.process import ROOT, START, Vmm, config
from tests.clients.tiny_guests import RESET, kernel, say

MISSING: Final = KvmEngine().missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"the kvm engine cannot run here: {MISSING}")

KVM: Final = ("--engine", "kvm", "--level", "Off")  # no log between the guest's words
LEAF: Final = 0x80000008  # KVM offers it everywhere, and nobody forbids any value of EBX
MSR: Final = 0x8B  # the microcode's revision: only the host may write it
EVERY: Final = 0xDEADBEEF

# mov dx, 0x3f8; mov ecx, 8; then eight times: rol ebx, 4; mov al, bl; and al, 15; add al, 'a'; out dx, al
SAY_EBX: Final = bytes.fromhex("66baf803 b908000000 c1c304 88d8 240f 0461 ee e2f4")


def tell_cpuid(leaf: int) -> bytes:
    """Say what CPUID leaves in EBX."""
    return b"\xb8" + leaf.to_bytes(4, "little") + bytes.fromhex("31c9 0fa2") + SAY_EBX  # mov eax, …; xor ecx, ecx


def tell_msr(addr: int) -> bytes:
    """Say the lower half of an MSR."""
    return b"\xb9" + addr.to_bytes(4, "little") + bytes.fromhex("0f32 89c3") + SAY_EBX  # mov ecx, …; mov ebx, eax


def spelled(value: int) -> str:
    """Spell a register as the guest does: a letter for every four bits."""
    return "".join(chr(ord("a") + (value >> shift & 15)) for shift in range(28, -4, -4))


GUEST: Final = say("<") + tell_cpuid(LEAF) + say(" ") + tell_msr(MSR) + say(">") + RESET


def bits(value: int, width: int) -> str:
    """Force a register to a value."""
    return f"0b{value:0{width}b}"


def template(leaf: int = LEAF, value: int = EVERY) -> dict[str, Any]:
    """Force EBX of a leaf, and with it the MSR."""
    modifiers = [{"register": "ebx", "bitmap": bits(value, 32)}]
    return {
        "cpuid_modifiers": [{"leaf": f"{leaf:#x}", "subleaf": "0x0", "flags": 0, "modifiers": modifiers}],
        "msr_modifiers": [{"addr": f"{MSR:#x}", "bitmap": bits(value, 64)}],
    }


@pytest.fixture
def vmm(start: Start) -> Vmm:
    """Give a VMM on the kvm engine with the guest that tells about itself."""
    process = start(*KVM)
    (process.folder / "kernel").write_bytes(kernel(GUEST))
    process.put("/boot-source", {"kernel_image_path": "kernel"})
    return process


def told(process: Vmm) -> str:
    """Give what the guest said before its end."""
    assert process.wait() == 0, process.err
    return process.out.partition("<")[2].partition(">")[0]


def test_a_guest_sees_what_the_template_says(vmm: Vmm) -> None:
    vmm.put("/cpu-config", template())
    vmm.put("/actions", START)
    assert told(vmm) == f"{spelled(EVERY)} {spelled(EVERY)}"


def test_the_last_template_counts(vmm: Vmm) -> None:
    vmm.put("/cpu-config", template())
    vmm.patch("/machine-config", {"cpu_template": "T2"})
    vmm.put("/cpu-config", template(value=0x12345678))
    vmm.put("/actions", START)
    assert told(vmm) == f"{spelled(0x12345678)} {spelled(0x12345678)}"


def test_none_takes_the_template_away(vmm: Vmm) -> None:
    vmm.put("/cpu-config", template())
    vmm.patch("/machine-config", {"cpu_template": "None"})
    vmm.put("/actions", START)
    assert spelled(EVERY) not in told(vmm)


def test_every_cpu_gets_the_template(start: Start) -> None:
    """Only vCPU 0 speaks here, but a machine of two starts only if both accept it."""
    machine = {"vcpu_count": 2, "mem_size_mib": 64, "smt": True}
    process = start(*KVM, guest=GUEST, api=None, configuration=config(machine_config=machine, cpu_config=template()))
    assert told(process) == f"{spelled(EVERY)} {spelled(EVERY)}"


def test_a_template_may_be_a_file(start: Start) -> None:
    process = start(*KVM)
    (process.folder / "template.json").write_text(json.dumps(template()))
    process.stop()
    again = start(*KVM, guest=GUEST, api=None, configuration=config(cpu_config="template.json"))
    assert told(again) == f"{spelled(EVERY)} {spelled(EVERY)}"


def test_the_vendor_cannot_be_changed(start: Start) -> None:
    forged = template(leaf=0)
    del forged["msr_modifiers"]
    guest = say("<") + tell_cpuid(0) + say(">") + RESET
    process = start(*KVM, guest=guest, api=None, configuration=config(cpu_config=forged))
    assert told(process) == spelled(execute(0, 0)[1])


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        (
            template(leaf=0x1234ABCD),
            "System configuration error: Failed to create guest config: Template changes a CPUID entry not supported"
            " by KVM: Leaf: 1234abcd, Subleaf: 0",
        ),
        (
            {"msr_modifiers": [{"addr": "0xdead0000", "bitmap": "0b0"}]},
            "System configuration error: Failed to create guest config: Template changes an MSR entry not supported by"
            " KVM: Register Address: dead0000",
        ),
        ({"kvm_capabilities": ["9999"]}, "Kvm error: Missing KVM capabilities: [0x270f]"),
    ],
)
def test_what_the_host_cannot_do_is_refused_and_can_be_corrected(
    vmm: Vmm, refused: dict[str, Any], sentence: str
) -> None:
    vmm.put("/cpu-config", refused)
    assert vmm.fault("PUT", "/actions", START) == f"Start microvm error: {sentence}"
    vmm.put("/cpu-config", template())
    vmm.put("/actions", START)
    assert told(vmm) == f"{spelled(EVERY)} {spelled(EVERY)}"


def test_a_capability_that_is_not_needed_need_not_be_there(vmm: Vmm) -> None:
    vmm.put("/cpu-config", {**template(), "kvm_capabilities": ["!55", "3"]})
    vmm.put("/actions", START)
    assert told(vmm) == f"{spelled(EVERY)} {spelled(EVERY)}"


def test_a_static_template_of_the_other_vendor_is_refused(vmm: Vmm) -> None:
    others = ("T2A",) if vendor_of(execute) == b"GenuineIntel" else ("T2", "T2S", "T2CL", "C3")
    for name in others:
        vmm.patch("/machine-config", {"cpu_template": name})
        assert vmm.fault("PUT", "/actions", START) == (
            "Start microvm error: Failed to get CPU template: CPU vendor mismatched between actual CPU and CPU"
            " template."
        )
    vmm.patch("/machine-config", {"cpu_template": "None"})
    vmm.put("/actions", START)
    assert vmm.wait() == 0


# --- cpu-template-helper, on the same KVM -----------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path: Any) -> Callable[..., tuple[int, str]]:
    """Run `cpu-template-helper` in the test's folder; give its exit code and what it says."""
    program = ROOT / "build/bin/cpu-template-helper"
    if not program.exists():
        pytest.skip("build/bin/cpu-template-helper is not there: tools/devtool build")

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_template_is_verified_by_what_it_does(helper: Callable[..., tuple[int, str]], tmp_path: Any) -> None:
    (tmp_path / "template.json").write_text(json.dumps(template()))
    assert helper("template", "verify", "-t", "template.json") == (0, "")
    # What CPUID normalisation overrules has no effect, and that is what verify is for.
    (tmp_path / "template.json").write_text(json.dumps(template(leaf=0)))
    code, said = helper("template", "verify", "-t", "template.json")
    assert (code, said.splitlines()[0]) == (1, "Value for leaf=0x0, subleaf=0x0, flags=0x0, register=ebx mismatched.")


def test_the_dump_of_a_templates_effect_differs_in_just_that(
    helper: Callable[..., tuple[int, str]], tmp_path: Any
) -> None:
    (tmp_path / "template.json").write_text(json.dumps(template()))
    assert helper("template", "dump", "-o", "plain.json") == (0, "")
    assert helper("template", "dump", "-o", "shaped.json", "-t", "template.json") == (0, "")
    assert helper("template", "strip", "-p", "plain.json", "shaped.json") == (0, "")
    stripped = json.loads((tmp_path / "shaped_stripped.json").read_text())
    assert [(leaf["leaf"], len(leaf["modifiers"])) for leaf in stripped["cpuid_modifiers"]] == [(f"{LEAF:#x}", 1)]
    assert [msr["addr"] for msr in stripped["msr_modifiers"]] == [f"{MSR:#x}"]


def test_this_host_has_a_fingerprint_that_does_not_change(helper: Callable[..., tuple[int, str]]) -> None:
    assert helper("fingerprint", "dump", "-o", "first.json") == (0, "")
    assert helper("fingerprint", "dump", "-o", "second.json") == (0, "")
    assert helper("fingerprint", "compare", "-p", "first.json", "-c", "second.json") == (0, "")
