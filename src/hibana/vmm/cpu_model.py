"""What the guest's CPUs are like: from a CPU template in the notebook to what an engine asks about it."""

from hibana.cpu_templates.merge import MergedTemplate
from hibana.cpu_templates.static import HostCpu, permitted_template
from hibana.engine.interface import CpuModel, Engine
from hibana.errors import CpuIsFixed, CpuTemplateError
from hibana.vmm.blueprint import Blueprint


def cpu_model(plan: Blueprint, engine: Engine) -> CpuModel:
    """Say what CPUs to make. Raises CpuTemplateError."""
    template = plan.cpu_template
    if template is None:
        return CpuModel(plan.smt)
    if not engine.takes_cpu_templates:
        raise CpuTemplateError(cause=CpuIsFixed())
    if isinstance(template, str):
        template = permitted_template(template, _host_cpu())
    return CpuModel(plan.smt, MergedTemplate(template))


def _host_cpu() -> HostCpu:
    from hibana.engine.kvm.host_cpuid import execute, vendor_of  # not before: few need it

    signature, *_ = execute(1, 0)
    return HostCpu(vendor_of(execute), signature)
