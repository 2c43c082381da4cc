"""What the guest's CPUs are like: from the CPU template in the notebook to what an engine asks about it."""

from hibana.config.cpu import CustomCpuTemplate
from hibana.cpu_templates.merge import MergedTemplate
from hibana.cpu_templates.static import HostCpu, permitted_template
from hibana.engine.interface import CpuModel, Engine
from hibana.errors import CpuIsFixed, CpuTemplateError


def cpu_model(engine: Engine, template: str | CustomCpuTemplate | None, smt: bool) -> CpuModel:
    """Say what CPUs to make. Raises CpuTemplateError."""
    if template is None:
        return CpuModel(smt)
    if not engine.takes_cpu_templates:
        raise CpuTemplateError(cause=CpuIsFixed())
    return CpuModel(smt, MergedTemplate(content(template)))


def content(template: str | CustomCpuTemplate) -> CustomCpuTemplate:
    """Give what a template says, also if only its name is given. Raises CpuTemplateError if it is not for this CPU."""
    if not isinstance(template, str):
        return template
    from hibana.engine.kvm.host_cpuid import execute, vendor_of  # not before: few need it

    signature, *_ = execute(1, 0)
    return permitted_template(template, HostCpu(vendor_of(execute), signature))
