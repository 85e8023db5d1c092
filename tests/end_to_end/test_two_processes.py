"""Two processes do what one does: the same samples, critiques, revisions and scores."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import run, write_recipe

SAME_BYTES = [
    "round-00/measure/samples.parquet",
    "round-00/measure/scores.parquet",
    "round-00/drift.json",
    "round-01/generate/responses.parquet",
    "round-01/generate/helpful.parquet",
    "round-01/refine/refinements.parquet",
    "round-01/refine/pairs.parquet",
    "round-01/distill/train.parquet",
]


@pytest.mark.slow
def test_two_processes_make_what_one_makes(tmp_path: Path) -> None:
    # The same global batch: two processes with half of it each.
    one = write_recipe(tmp_path, rounds=1)
    run("iterate", "--config", one, "--run_dir", tmp_path / "one", launcher="cpu")
    halved = ("--per_device_train_batch_size", "4")
    run("iterate", "--config", one, "--run_dir", tmp_path / "two", *halved, launcher="cpu_2proc")
    for name in SAME_BYTES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name

    manifests = [
        json.loads((tmp_path / n / "round-01" / "distill" / "manifest.json").read_text()) for n in ("one", "two")
    ]
    assert [m["timing"]["processes"] for m in manifests] == [1, 2]
    assert manifests[0]["steps"] == manifests[1]["steps"]
    losses = [[entry["loss"] for entry in m["loss_curve"]] for m in manifests]
    # The ranks average over their own tokens, so single losses differ; the course of training does not.
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    for name in ("one", "two"):
        assert pq.read_table(tmp_path / name / "round-01" / "measure" / "scores.parquet").num_rows > 0
