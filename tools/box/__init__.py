"""The box: a machine that QEMU emulates down to AMD's virtualization, so that KVM works where no hardware gives it.

Enters: a command and the checkout. Leaves: the command's output, its exit code, and what it put below build/box-out.
Inside, the checkout lies where it lies on the host, so paths mean the same. Read `machine.py` first, then
`checkout.py` and `made.py`; what happens inside is in tools/guest/box_init.sh.
"""
