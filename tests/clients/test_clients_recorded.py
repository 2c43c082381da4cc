"""What known clients write, byte for byte, and what they wait for (ecosystem.md §1.4)."""

import http.client
import socket
from typing import NamedTuple

import pytest

from .conftest import ApiProcess  # type: ignore[import-not-found]
