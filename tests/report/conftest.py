from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import SCORES, to_table, write_table

Panels = Mapping[str, Mapping[str, np.ndarray]]


def write_scores(run: RunDir, round_: int, scorers: Panels, slices: int = 1) -> None:
    """The scores table of a round: {scorer: {probe set: [n_prompts, k]}}, NaN where there is no score."""
    rows = []
    for scorer, probe_sets in scorers.items():
        for probe_set, panel in probe_sets.items():
            for i, samples in enumerate(panel):
                for k, value in enumerate(samples):
                    missing = bool(np.isnan(value))
                    rows.append(
                        {
                            "prompt_id": f"{probe_set}-{i:04d}",
                            "sample": k,
                            "probe_set": probe_set,
                            "slice": f"s{i % slices}",
                            "scorer": scorer,
                            "score": None if missing else float(value),
                            "reason": "no tokens" if missing else None,
                        }
                    )
    # Not in the order of prompts: what a table says must not hang on it.
    shuffled = [rows[i] for i in np.random.default_rng(round_).permutation(len(rows))]
    shuffled.sort(key=lambda row: (row["scorer"], row["probe_set"]))
    write_table(run.stage_dir(round_, "measure") / "scores.parquet", [to_table(shuffled, SCORES)], SCORES)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


@pytest.fixture(name="write_scores")
def _write_scores() -> Callable[..., None]:
    return write_scores
