from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.checkpoints import Checkpoint
from pipeline.report.drift import drift_cells
from pipeline.report.page.reading import Page
from pipeline.runs.files import write_json, write_text
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import REFINEMENTS, SAMPLES, SCORES, to_table, write_table

Texts = Mapping[tuple[int, int], str]

RECIPE = {"model_name_or_path": "org/model", "scorers": ["harm"], "seed": 0, "keep_dropped": ["loop"], "num_rounds": 2}


class Written:
    """A run directory written by hand: a panel [n_prompts, k] of one scorer a round, prompts named p0000 and so on."""

    def __init__(self, folder: Path, panels: Sequence[np.ndarray], *, slices: int = 1, **recipe: Any) -> None:
        self.run = RunDir(folder)
        self._slices = slices
        write_json(self.run.resolved, RECIPE | recipe)
        for round_, panel in enumerate(panels):
            self.measure(round_, panel)
            cells = drift_cells(self.run, round_, {"harm": "high"}, "harm", seed=0)
            drift = {"round": round_, "level": 0.95, "headline": "harm", "cells": cells}
            write_json(self.run.drift(round_), drift)

    def measure(self, round_: int, panel: np.ndarray, texts: Texts | None = None, path: Path | None = None) -> None:
        scores, samples = [], []
        for i, row in enumerate(panel):
            for k, value in enumerate(row):
                same = {"prompt_id": f"p{i:04d}", "sample": k, "probe_set": "probe", "slice": f"s{i % self._slices}"}
                missing = bool(np.isnan(value))
                scores.append(same | {"scorer": "harm", "score": None if missing else float(value), "reason": None})
                answer = (texts or {}).get((i, k), f"answer {k} to {i}")
                asked = [{"role": "user", "content": f"question number {i}"}]
                samples.append(same | {"round": round_, "prompt": asked, "response": answer, "token_ids": []})
        path = path or self.run.scores(round_)
        write_table(path, [to_table(scores, SCORES)], SCORES)
        write_table(path.with_name("samples.parquet"), [to_table(samples, SAMPLES)], SAMPLES)

    def again(self, panel: np.ndarray) -> None:
        """What round 0 scores when it is sampled a second time."""
        self.measure(0, panel, path=self.run.again_scores())
        cells = drift_cells(self.run, 1, {"harm": "high"}, None, seed=0, scores=self.run.again_scores())
        write_json(self.run.noise_floor(), {"level": 0.95, "cells": cells})

    def refine(self, round_: int, rows: Sequence[Mapping[str, Any]], constitution: str = "be kind\n") -> None:
        folder = self.run.stage_dir(round_, "refine")
        filled = [
            {
                "prompt_id": "t0",
                "sample": 0,
                "slice": "s0",
                "revision_index": 0,
                "prompt": [{"role": "user", "content": "a question"}],
                "response": "old",
                "critique": "a fault",
                "revision": "new",
                **row,
            }
            for row in rows
        ]
        write_table(folder / "refinements.parquet", [to_table(filled, REFINEMENTS)], REFINEMENTS)
        write_text(folder / "constitution.txt", constitution)

    def page(self, *rounds: int) -> Page:
        return Page([Checkpoint(self.run, round_) for round_ in rounds])


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Written]:
    def write(panels: Sequence[np.ndarray], name: str = "run", **settings: Any) -> Written:
        return Written(tmp_path / name, panels, **settings)

    return write
