"""Huge pages for what is filled as a whole, and only from a host that has plenty."""

import os
import re
from pathlib import Path

import pytest

from hibana.memory import huge
from hibana.memory.guest import GuestMemory
from hibana.units import HUGE_PAGE, MIB, PAGE

BUDDYINFO = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3
Node 0, zone    DMA32     42     36     34     28     29     20     19     17     21     15    735
Node 1, zone   Normal   4487  28847  19029   6280   2987   3229   2615   1487    752    292   3538
"""


def test_only_pieces_as_large_as_a_huge_page_are_free_for_one(tmp_path: Path) -> None:
    (tmp_path / "buddyinfo").write_text(BUDDYINFO)
    large, larger = 1 + 15 + 292, 3 + 735 + 3538
    assert huge.free(str(tmp_path / "buddyinfo")) == large * HUGE_PAGE + larger * 2 * HUGE_PAGE


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "Node 0, zone Normal x y\n"])
def test_a_host_that_does_not_say_has_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "buddyinfo").write_text(content)
    assert huge.free(str(tmp_path / "buddyinfo")) == 0


def _mode() -> str:
    """Read whom the host gives transparent huge pages: always, madvise (who asks) or never."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.read_text().partition("[")[2].partition("]")[0] if setting.exists() else "never"


def _huge_bytes(memory: GuestMemory) -> int:
    """Read how much of the reservation is in huge pages now."""
    smaps = Path("/proc/self/smaps").read_text()
    total = 0
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE)[1:]:
        start, end = (int(word, 16) for word in mapping.split(None, 1)[0].split("-"))
        if start < memory.host_addr + memory.size and memory.host_addr < end:
            total += int(re.findall(r"AnonHugePages:\s+(\d+) kB", mapping)[0]) * 1024
    return total


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(os.urandom(9 * MIB))
    return path


def test_what_fills_whole_huge_pages_gets_them(image: Path) -> None:
    if _mode() == "never":
        pytest.skip("this host gives no transparent huge pages")
    if huge.free() < 64 * MIB:
        pytest.skip("this host has too few free huge pages")
    memory = GuestMemory(64 * MIB)
    with open(image, "rb") as file:
        memory.fill(17 * MIB + PAGE, 9 * MIB - PAGE, file.fileno(), PAGE)
    assert memory.read(17 * MIB + PAGE, 9 * MIB - PAGE) == image.read_bytes()[PAGE:]
    assert _huge_bytes(memory) == 8 * MIB
    memory.close()


def test_a_host_that_has_to_make_room_first_is_not_asked(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if _mode() != "madvise":
        pytest.skip("this host does not give huge pages to those who ask for them, and to nobody else")
    monkeypatch.setattr(huge, "free", lambda: 31 * MIB)
    memory = GuestMemory(64 * MIB)
    with open(image, "rb") as file:
        memory.fill(18 * MIB, 9 * MIB, file.fileno(), 0)
    assert memory.read(18 * MIB, 9 * MIB) == image.read_bytes()
    assert _huge_bytes(memory) == 0
    memory.close()
