"""Hibana (火花, "spark"): a Firecracker-compatible microVM monitor.

Read the packages in the order in which a microVM comes alive: cli, api, config, vmm, memory, boot, engine, bus,
devices, host; then jail and seccomp, which lock it in; observe is what the operator sees. docs/book.md is the guided
tour.
"""

from typing import Final

__version__: Final = "0.1.0"
FIRECRACKER_VERSION: Final = "1.17.0-dev"
"""The Firecracker release whose face this build shows."""
