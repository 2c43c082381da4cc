"""From the CPU template in the notebook to what an engine asks about it."""

import pytest

from hibana.config.cpu import CustomCpuTemplate
from hibana.cpu_templates.static import static_template
from hibana.engine.interface import CpuModel
from hibana.engine.kvm import host_cpuid
from hibana.engine.state import CpuidEntry
from hibana.errors import CpuTemplateError
from hibana.serde.records import decode
from hibana.vmm.cpu_model import content, cpu_model
from tests.unit.engine.kvm.recorded_cpuid import AMD_HOST, INTEL_HOST
from tests.unit.vmm.fake_engine import FakeEngine

CUSTOM = decode(
    b'{"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0,'
    b' "modifiers": [{"register": "eax", "bitmap": "1"}]}]}',
    CustomCpuTemplate,
)


class Flexible(FakeEngine):
    """An engine whose CPUs can be shaped."""

    takes_cpu_templates = True


def test_without_a_template_only_threads_matter() -> None:
    for engine in (FakeEngine(), Flexible()):
        assert cpu_model(engine, None, smt=True) == CpuModel(smt=True)
        assert cpu_model(engine, None, smt=False) == CpuModel()


def test_a_custom_template_reaches_the_engine() -> None:
    model = cpu_model(Flexible(), CUSTOM, smt=False)
    assert model.template is not None
    assert model.template.cpuid([CpuidEntry(1, 0, 0, 2, 0, 0, 0)])[0].eax == 3


@pytest.mark.parametrize("template", ["T2", CUSTOM])
def test_an_engine_with_a_fixed_cpu_takes_no_template(template: str | CustomCpuTemplate) -> None:
    with pytest.raises(CpuTemplateError) as caught:
        cpu_model(FakeEngine(), template, smt=False)
    assert str(caught.value) == (
        "Failed to get CPU template: The soft engine has one fixed CPU and takes no CPU template."
    )  # fmt: skip


def test_a_static_template_is_for_the_hosts_that_it_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_cpuid, "execute", INTEL_HOST)
    assert content("T2CL") == static_template("T2CL")
    with pytest.raises(CpuTemplateError, match="CPU vendor mismatched between actual CPU and CPU template"):
        content("T2A")
    monkeypatch.setattr(host_cpuid, "execute", AMD_HOST)
    with pytest.raises(CpuTemplateError, match="The current CPU model is not permitted to apply the CPU template"):
        content("T2A")
