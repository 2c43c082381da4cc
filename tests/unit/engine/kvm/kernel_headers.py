"""What a C compiler makes of the kernel's headers: the program, the table it printed once, and how to print it again.

To renew the table: python -m tests.unit.engine.kvm.kernel_headers > tests/unit/engine/kvm/kernel_headers.txt
"""

import os
import re
import shutil
import subprocess
import tempfile
from struct import Struct
from typing import Final

from hibana.engine.kvm import abi

TABLE: Final = os.path.join(os.path.dirname(__file__), "kernel_headers.txt")
HEADER: Final = "/usr/include/linux/kvm.h"

# Ours → the kernel's, where the name alone does not say it.
_RECORDS: Final = {
    "XSAVE": "struct kvm_xsave",
    "PIT_CONFIG": "struct kvm_pit_config",
    "IRQ_ROUTING_ENTRY": "struct kvm_irq_routing_entry",
    "CPUID_ENTRY2": "struct kvm_cpuid_entry2",
}
_OFFSETS: Final = {
    "RUN_IMMEDIATE_EXIT": "immediate_exit",
    "RUN_EXIT_REASON": "exit_reason",
    "RUN_UNION": "io",
    "RUN_MMIO_DATA": "mmio.data",
}
# Parts of the union in struct kvm_run: where their last field begins.
_UNION_FIELDS: Final = {
    "EXIT_IO": "io.data_offset",
    "EXIT_MMIO": "mmio.is_write",
    "EXIT_FAIL_ENTRY": "fail_entry.cpu",
    "EXIT_SYSTEM_EVENT": "system_event.type",
}


def constants() -> dict[str, int]:
    """Collect our requests and constants under the kernel's names."""
    return {name: value for name, value in vars(abi).items() if name.startswith("KVM_")}


def records() -> dict[str, Struct]:
    """Collect our records of the kernel's own, by our names."""
    found = {name: value for name, value in vars(abi).items() if isinstance(value, Struct)}
    return {name: value for name, value in found.items() if name not in _UNION_FIELDS}


def expected() -> dict[str, int]:
    """Say what the table has to contain, by our declarations."""
    table = constants()
    table |= {f"sizeof {name}": record.size for name, record in records().items()}
    table |= {f"offset {name}": getattr(abi, name) for name in _OFFSETS}
    for name in _UNION_FIELDS:
        record: Struct = getattr(abi, name)
        last = re.findall(r"\d*[a-zA-Z]", record.format)[-1]
        table[f"last {name}"] = abi.RUN_UNION + record.size - Struct(f"<{last}").size
    return table


def program() -> str:
    """Write the C program that prints the table."""
    lines = [f'    printf("{name} %#llx\\n", (unsigned long long){name});' for name in constants()]
    for name in records():
        kernel = _RECORDS.get(name, f"struct kvm_{name.lower()}")
        lines.append(f'    printf("sizeof {name} %#zx\\n", sizeof({kernel}));')
    for name, field in (*(("offset " + n, f) for n, f in _OFFSETS.items()), *_union_fields()):
        lines.append(f'    printf("{name} %#zx\\n", offsetof(struct kvm_run, {field}));')
    return "\n".join(
        ["#include <stddef.h>", "#include <stdio.h>", "#include <linux/kvm.h>", "int main(void) {", *lines, "}"]
    )


def _union_fields() -> list[tuple[str, str]]:
    return [(f"last {name}", field) for name, field in _UNION_FIELDS.items()]


def print_table() -> str:
    """Compile the program and run it."""
    compiler = shutil.which("gcc")
    assert compiler
    with tempfile.TemporaryDirectory() as folder:
        source, binary = os.path.join(folder, "table.c"), os.path.join(folder, "table")
        with open(source, "w") as file:
            file.write(program())
        subprocess.run([compiler, "-o", binary, source], check=True)
        return subprocess.run([binary], check=True, capture_output=True, text=True).stdout


def parse(text: str) -> dict[str, int]:
    """Read a table."""
    rows = (line.rpartition(" ") for line in text.splitlines())
    return {name: int(value, 16) for name, _, value in rows}


if __name__ == "__main__":
    print(print_table(), end="")
