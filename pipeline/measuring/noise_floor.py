"""Round 0 measured a second time with different noise: its distance from round 0 shows what noise alone can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.measuring.probing import Probe, probe
from pipeline.report.drift import LEVEL, drift_cells
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, write_json

if TYPE_CHECKING:
    from pipeline.setup.session import Session

NOISE = "again"


def measure_again(session: Session, *, rescore: bool = False) -> Path:
    """Probe the base again and write ``noise_floor.json``; return the path of the scores.

    Scorers' own questions are not asked again, since their scores involve no sampling. With ``rescore``, scorers that
    have been added since then score the existing samples.
    """
    what = Probe(
        folder=session.run.stage_dir(0, "again"),
        round=0,
        adapter=None,
        prompts={name: loaded.prompts for name, loaded in session.probe_sets.items()},
        samples=session.recipe.probe_samples,
        scorers=[entry for entry in session.recipe.scorers if entry not in session.instruments.questions],
        noise=NOISE,
    )
    scores = probe(session, what, rescore=rescore)
    if ranks.is_main():
        worse = {name: end for name, end in session.columns.items() if name not in session.question_columns}
        cells = drift_cells(session.run, 1, worse, None, session.seed, scores=scores)
        write_json(session.run.noise_floor(), {"level": LEVEL, "scores_sha256": file_sha256(scores), "cells": cells})
    return scores
