"""How a round's panel is compared with round 0's: what alarms begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.alarms import forecast_record
from pipeline.report.panels import read_panel
from pipeline.report.screen import screen, screen_seed
from pipeline.scorers.battery import battery_columns
from pipeline.setup.watched import Property, battery_of
from pipeline.tails import Comparison, forecast, half_of, tail_thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.setup.session import Session

FORECAST_SIZES = (10_000, 100_000, 1_000_000)

FRESH = "fresh"
"""Name used in place of a probe set for prompts that are not on the panel."""


def compare_with_base(
    session: Session, watched: Property, scores: Path, thresholds: Sequence[float]
) -> tuple[Comparison, list[str]]:
    """Compare the panel's scores with round 0's, beyond frozen thresholds; also return the slice names by number."""
    panel = next(iter(session.probe_sets))
    before, after = (read_panel(path, watched.scorer, panel) for path in (session.run.scores(0), scores))
    warning = None
    if battery := battery_of(session, watched):
        then, now = (read_panel(path, battery, panel).scores[:, 0] for path in (session.run.scores(0), scores))
        warning = (then, now)
    return screen(before, after, tail=watched.tail, seed=session.seed, thresholds=thresholds, battery=warning)


def fix_thresholds(session: Session, watched: Property) -> tuple[tuple[float, ...], str]:
    """The thresholds for the whole run, from round 0, and a note on where they come from."""
    scores = session.run.stage_dir(0, "calibration") / "scores.parquet"
    if not scores.exists():
        own = read_panel(session.run.scores(0), watched.scorer, next(iter(session.probe_sets))).scores
        half = half_of(own, screen_seed(session.seed))
        return tail_thresholds(half, tail=watched.tail), f"a random half of the {len(own)} panel prompts at round 0"
    other = read_panel(scores, watched.scorer, FRESH)
    return tail_thresholds(other.scores, tail=watched.tail), f"{len(other.prompt_ids)} calibration prompts at round 0"


def forecasts(session: Session, round_: int) -> list[dict[str, Any]]:
    """How likely the worst of many prompts gets an undesired opening of the first battery, at round 0 and now."""
    _, undesired = battery_columns(session.instruments.batteries[0])
    panel = next(iter(session.probe_sets))
    panels = [read_panel(session.run.scores(r), undesired, panel) for r in (0, round_)]
    # An opening that begins with another one counts twice, so the sum of probabilities may exceed 1.
    before, after = (np.minimum(one.scores[:, 0], 0.0) for one in panels)
    return [
        {
            "n_prompts": size,
            "baseline": forecast_record(forecast(before, size)),
            "current": forecast_record(forecast(after, size)),
        }
        for size in FORECAST_SIZES
    ]
