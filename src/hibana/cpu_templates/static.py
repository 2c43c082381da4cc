"""The templates that have names, and the CPUs on which they may be used (machine.md §3.10).

They are made for certain CPUs: on others they would hide too little, so that a guest could not move to its next host.
"""

import os
from typing import Final, NamedTuple

from hibana.config.cpu import CustomCpuTemplate
from hibana.errors import CpuModelNotPermitted, CpuTemplateError, CpuVendorMismatch
from hibana.observe import log
from hibana.serde.records import decode

_INTEL: Final = b"GenuineIntel"
_AMD: Final = b"AuthenticAMD"

# Family, model and stepping, as leaf 1 has them in EAX.
_SKYLAKE: Final = 0x50654
_CASCADE_LAKE: Final = 0x50657
_ICE_LAKE: Final = 0x606A6
_MILAN: Final = 0xA00F11
_SIGNATURE: Final = 0x0FFF0FFF  # without the processor type and what is reserved


class HostCpu(NamedTuple):
    """Who made the host's CPU, and which one it is (leaf 1, EAX)."""

    vendor: bytes
    signature: int


_PERMITTED: Final = {
    "C3": (_INTEL, (_SKYLAKE, _CASCADE_LAKE, _ICE_LAKE)),
    "T2": (_INTEL, (_SKYLAKE, _CASCADE_LAKE, _ICE_LAKE)),
    "T2S": (_INTEL, (_SKYLAKE, _CASCADE_LAKE)),
    "T2CL": (_INTEL, (_CASCADE_LAKE, _ICE_LAKE)),
    "T2A": (_AMD, (_MILAN,)),
}
NAMES: Final = tuple(_PERMITTED)


def permitted_template(name: str, host: HostCpu) -> CustomCpuTemplate:
    """Give the template of that name if it may be used on this CPU. Raises CpuTemplateError."""
    vendor, signatures = _PERMITTED[name]
    signature = host.signature & _SIGNATURE
    if host.vendor != vendor:
        raise CpuTemplateError(cause=CpuVendorMismatch())
    if signature not in signatures:
        raise CpuTemplateError(cause=CpuModelNotPermitted())
    if name == "C3" and signature == _SKYLAKE:
        log.warn("With the C3 template on this CPU guests do not protect themselves against MMIO stale data.")
    return static_template(name)


def static_template(name: str) -> CustomCpuTemplate:
    """Read the template of that name."""
    with open(os.path.join(os.path.dirname(__file__), f"{name}.json"), "rb") as file:
        return decode(file.read(), CustomCpuTemplate)
