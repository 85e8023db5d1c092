"""A small part of benchmarks/bookkeeping.py: its engine still fits the stages, and every row goes through them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pyarrow.compute as pc

from pipeline.runs.files import read_json
from pipeline.runs.tables import read_table


def test_every_row_goes_through_every_stage(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "bookkeeping.py"
    spec = importlib.util.spec_from_file_location("bookkeeping", path)
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    measured = benchmark.measure_size(1200, 4, tmp_path)
    assert list(measured["stages"]) == ["load", "generate", "refine", "measure"]
    assert all(stage["rows"] == (300 if name == "load" else 1200) for name, stage in measured["stages"].items())

    run = tmp_path / "run"
    refined = read_table(run / "round-01" / "refine" / "refinements.parquet")
    kept = refined["drop_reason"].null_count
    assert refined.num_rows == 1200 and kept > 1150, "words at random seldom make a defect"
    assert pc.count_distinct(refined["prompt_id"]).as_py() == 300
    assert read_table(run / "round-01" / "refine" / "pairs.parquet").num_rows == kept
    scores = read_table(run / "round-00" / "measure" / "scores.parquet")
    assert scores.num_rows == 2400 and scores["score"].null_count == 0
    tokens = read_json(run / "round-01" / "generate" / "manifest.json")["tokens"]
    assert tokens == {"prompt": 1200 * 60, "new": 1200 * 40}
