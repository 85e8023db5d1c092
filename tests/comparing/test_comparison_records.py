"""A comparison for machines."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from drawn_runs import write_run

from pipeline.comparing.comparison import SideBySide, compare_checkpoints
from pipeline.comparing.pairs import choose_pairs
from pipeline.comparing.records import CSV_COLUMNS, as_csv, as_json
from pipeline.report.checkpoints import find_checkpoints
from pipeline.report.costs import Price


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SideBySide:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", text="\x1b[2J漢字\u202e")
    return compare_checkpoints(find_checkpoints([f"{run.path}:0", f"{run.path}:2"]))


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def test_json_has_every_number_with_its_interval(found: SideBySide) -> None:
    text = as_json(found, Price(1.0, 0.0), choose_pairs(found, "worst", 2))
    assert text.isascii() and "\x1b" not in text
    record = json.loads(text, parse_constant=no_constant)
    assert len(record["cells"]) == sum(len(entry.cells) for entry in found.entries)
    cell = next(c for c in record["cells"] if c["checkpoint"] == "run:2" and c["quantity"] == "mean")
    known = found.entries[1].cells["mean"]
    assert (cell["value"], cell["low"], cell["high"]) == (known["value"], known["low"], known["high"])
    assert (cell["change"], cell["change_low"]) == (known["baseline_value"], known["baseline_low"])
    red = next(v for v in record["verdicts"] if v["verdict"] == "red")
    assert (red["loudest_slice"], red["verdict_from"], red["thresholds"]) == ("s0", "alarm.json", [1.5, 2.5])
    assert record["checkpoints"][1]["cost_so_far"]["money"] == pytest.approx(240 / 3600)
    assert record["pairs"][0]["after"]["text"].startswith("\x1b[2J漢字\u202e round 2")


def test_csv_has_a_row_a_number(found: SideBySide) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == sum(len(entry.cells) for entry in found.entries)
    row = next(r for r in rows if r["checkpoint"] == "run:2" and r["quantity"] == "mean")
    assert float(row["change_high"]) == found.entries[1].cells["mean"]["baseline_high"]
    assert (row["verdict"], row["verdict_from"]) == ("red", "alarm.json")
    assert all(row["change"] == "" for row in rows if row["checkpoint"] == "run:0")


def test_a_price_is_asked_for_before_it_is_said(found: SideBySide, tmp_path: Path) -> None:
    record = json.loads(as_json(found, None, []))
    assert "money" not in record["checkpoints"][0]["cost_so_far"] and record["pairs"] == []
