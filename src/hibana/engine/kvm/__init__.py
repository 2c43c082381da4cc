"""The kvm engine: guest code runs on the host's CPU, and the kernel's chips stand between it and the devices.

RAM and a bus enter; vCPUs that run leave. Read `engine.py` first: what a virtual machine is made of, and in which
order; then `runner.py`: one thread inside KVM_RUN, and what it does when that comes back. `abi.py` is the kernel's
interface, declared once. What this engine does by itself is little: `vcpu_state.py` and `chips.py` translate between
the kernel's records and `engine/state.py`, `probe.py` finds out whether the host's KVM is worth it.
"""
