"""Scores of rounds -> drift.json: each quantity with its interval, and its change since round 0 and since the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RunError
from pipeline.inputs.question_sets import is_question_set
from pipeline.report.calibration import calibration_values
from pipeline.report.panels import Panel, to_panel
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table
from pipeline.scorers import SLICED, Worse
from pipeline.tails import frozen_threshold, summarise

Cell = dict[str, Any]

LEVEL = 0.95
THRESHOLD_QUANTILE = 0.99


def drift_cells(
    run: RunDir,
    round_: int,
    worse: Mapping[str, Worse],
    headline: str | None,
    seed: int,
    *,
    scores: Path | None = None,
) -> list[Cell]:
    """The drift table of a round, one cell per (scorer, tail, probe set, slice, quantity).

    Covers whole probe sets for every scorer (``slice`` is None), and each of their slices for the headline scorer and
    for scorers that are about slices (``SLICED``).

    Args:
        run: run directory with the scores of this round, of round 0, and of the round before.
        round_: the round.
        worse: which end of each scorer is the bad one; ``both`` gives two rows of cells.
        headline: the scorer that is also split by slice.
        seed: random seed of the bootstrap.
        scores: scores to compare with round 0 and the round before, in place of the round's own.
    """
    earlier = [run.scores(0), run.scores(max(round_ - 1, 0))]
    tables = [read_table(path) for path in (*earlier, scores or run.scores(round_))]
    cells: list[Cell] = []
    for scorer, bad_end in worse.items():
        of_scorer = [table.filter(pc.field("scorer") == scorer) for table in tables]
        for probe_set in _values(of_scorer[2], "probe_set"):
            of_set = [table.filter(pc.field("probe_set") == probe_set) for table in of_scorer]
            _require_scores(of_set, f"{scorer} on {probe_set}", run.path)
            slices = [None, *_values(of_set[2], "slice")] if scorer == headline else [None]
            slices += sorted(_values(of_set[2], "slice")) if scorer in SLICED and scorer != headline else []
            for name in slices if len(slices) > 2 else [None]:
                part = of_set if name is None else [t.filter(pc.field("slice") == name) for t in of_set]
                panels = [to_panel(table) for table in part]
                _require_same_prompts(panels, f"{scorer} on {probe_set}", run.path)
                for tail in (
                    ("upper", "lower") if bad_end == "both" else ("upper",) if bad_end == "high" else ("lower",)
                ):
                    label = {"scorer": scorer, "tail": tail, "probe_set": probe_set, "slice": name}
                    found = _cells(label, panels, round_, seed)
                    if np.isnan(panels[2].scores).all():
                        found = [cell | {"why": _why_missing(part[2])} for cell in found]
                    cells += found
    return cells


def metric_values(drift: Mapping[str, Any]) -> dict[str, float]:
    """The values of a drift table by ``SCORER[/low]/PROBE SET[/SLICE]/QUANTITY``, and its calibration errors."""
    of_cells = {
        "/".join(
            [
                c["scorer"],
                *([] if c["tail"] == "upper" else ["low"]),
                c["probe_set"],
                *([c["slice"]] if c["slice"] else []),
                c["quantity"],
            ]
        ): c["value"]
        for c in drift["cells"]
        if c["value"] is not None
    }
    return of_cells | calibration_values(drift.get("calibration", []))


def panel_of(cells: Sequence[Mapping[str, Any]]) -> str | None:
    """The panel of a drift table, its first probe set; None where it has none. Question sets are not probe sets."""
    return next((cell["probe_set"] for cell in cells if not is_question_set(cell["probe_set"])), None)


def first_scored(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The first probe set, or set of questions, on which a scorer has a score, by scorer."""
    found: dict[str, str] = {}
    for cell in cells:
        if cell["n_prompts"]:
            found.setdefault(cell["scorer"], cell["probe_set"])
    return found


def _cells(label: Mapping[str, Any], panels: Sequence[Panel], round_: int, seed: int) -> list[Cell]:
    base, previous, current = (panel.scores for panel in panels)
    threshold = frozen_threshold(base, THRESHOLD_QUANTILE, tail=label["tail"])
    rows = summarise(
        base if round_ else None,
        current,
        (base if round_ == 1 else previous) if round_ else None,
        threshold=None if np.isnan(threshold) else threshold,
        tail=label["tail"],
        level=LEVEL,
        seed=seed,
    )
    shown = None if np.isnan(threshold) else threshold
    return [{**label, "threshold": shown, **row.flat()} for row in rows]


def _why_missing(table: pa.Table) -> str:
    """Why a scorer has no score at all: the reason that it gave most often."""
    (reason, count), *_ = Counter(table["reason"].to_pylist()).most_common(1)
    return f"no score ({count:,} of {table.num_rows:,}: {reason})"


def _values(table: pa.Table, column: str) -> list[str]:
    # In the order of the table, which is that of the recipe.
    return [str(value) for value in pc.unique(table[column]).to_pylist()]


def _require_scores(tables: Sequence[pa.Table], what: str, run: Path) -> None:
    if any(table.num_rows == 0 for table in tables):
        raise RunError(
            f"{run}: {what} was not measured in an earlier round, so there is nothing to compare with. Score the "
            f"samples of those rounds: `python pipeline/measure.py --run_dir {run} --round all`."
        )


def _require_same_prompts(panels: Sequence[Panel], what: str, run: Path) -> None:
    if any(panel.prompt_ids != panels[0].prompt_ids for panel in panels):
        raise RunError(f"{run}: {what} was measured on other prompts in an earlier round; start a new --run_dir.")
