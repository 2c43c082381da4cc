"""Namespaces that the jailer is told to join."""

import os
from pathlib import Path

import pytest

from hibana.errors import JoinNetworkError
from hibana.jail import namespaces


def test_a_fifo_is_no_network_namespace_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(JoinNetworkError, match=r"Invalid argument \(os error 22\)"):
        namespaces.join_network(str(tmp_path / "fifo"))
