"""The device benchmark measures every device at every batch, against a floor."""

import json

import pytest

from tools.bench import devices


def test_every_figure_stands_beside_its_floor(capsys: pytest.CaptureFixture[str]) -> None:
    assert devices.main(["--n", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["what"].partition(",")[0] for row in rows} == {"block", "net", "rng"}
    assert {row["batch"] for row in rows} == set(devices.BATCHES)
    assert all(row["device"] > 0 and row["floor"] > 0 for row in rows)


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert devices.main(["--n", "3"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["µs", "per", "request", "batch", "device", "floor", "ratio"]
    assert len(rows) == 10
