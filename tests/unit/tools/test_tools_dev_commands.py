"""What `tools/devtool` does before anything is installed."""

import importlib
import subprocess

import pytest

from tools.dev import places
from tools.dev.__main__ import COMMANDS


def devtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(places.ROOT / "tools/devtool"), *arguments], check=False, capture_output=True, text=True)


def test_help_names_every_command() -> None:
    done = devtool("help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"help"}))
def test_every_command_has_a_file(name: str) -> None:
    assert callable(importlib.import_module(f"tools.dev.{name}").main)


def test_an_unknown_command_is_refused_as_the_reference_does() -> None:
    done = devtool("nonsense")
    assert done.returncode == 1
    assert done.stderr == "Unknown command: nonsense. Please use `tools/devtool help` for help.\n"
