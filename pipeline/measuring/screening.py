"""What alarms watch, and how a round's panel is compared with round 0's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import RunError
from pipeline.report.alarms import forecast_record
from pipeline.report.panels import read_panel
from pipeline.runs.files import read_json
from pipeline.runs.seeds import stage_seed
from pipeline.scorers.battery import battery_columns
from pipeline.tails import Comparison, compare, forecast, half_of, tail_thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.setup.session import Session
    from pipeline.tails.arrays import Tail

FORECAST_SIZES = (10_000, 100_000, 1_000_000)

FRESH = "fresh"
"""Name used in place of a probe set for prompts that are not on the panel."""


class Property(NamedTuple):
    """What an alarm watches: one end of one score."""

    scorer: str
    tail: Tail


def properties_of(session: Session) -> list[Property]:
    """The properties that the recipe watches; a score that is bad at both ends counts as two."""
    tails: dict[str, Sequence[Tail]] = {"high": ["upper"], "low": ["lower"], "both": ["upper", "lower"]}
    return [Property(column, tail) for column in columns_of(session) for tail in tails[session.columns[column]]]


def columns_of(session: Session) -> list[str]:
    """The columns that the recipe watches, all of sampled answers: only those can be drawn on fresh prompts."""
    watched = session.recipe.alarm_scorers or [session.headline]
    return [column for column in watched if column not in session.question_columns]


def watched_scorers(session: Session) -> list[str]:
    """The scorers that produce those columns."""
    return list(dict.fromkeys(session.scorer_of(column) for column in columns_of(session)))


def compare_with_base(
    session: Session, watched: Property, scores: Path, thresholds: Sequence[float]
) -> tuple[Comparison, list[str]]:
    """Compare the panel's scores with round 0's, beyond frozen thresholds; also return the slice names by number."""
    panel = next(iter(session.probe_sets))
    before = read_panel(session.run.scores(0), watched.scorer, panel)
    after = read_panel(scores, watched.scorer, panel)
    names = sorted(set(before.slices))
    slices = [names.index(name) for name in before.slices] if len(names) > 1 else None
    probes = None
    if battery := battery_of(session, watched):
        sides = (read_panel(path, battery, panel).scores[:, 0] for path in (session.run.scores(0), scores))
        probes = (next(sides), next(sides))
    result = compare(
        before.scores,
        after.scores,
        slices=slices,
        probe=probes,
        thresholds=thresholds,
        tail=watched.tail,
        seed=stage_seed(session.seed, "screen", 0),
    )
    return result, names


def battery_of(session: Session, watched: Property) -> str | None:
    """The column of log-probabilities that warns of a property: the first battery's, for the first property only."""
    if not session.instruments.batteries or watched != properties_of(session)[0]:
        return None
    return battery_columns(session.instruments.batteries[0])[0]


def instrument_of(session: Session, watched: Property) -> str | None:
    """Digest of the judge, rubric, classifier or files behind a watched score; None for one that reads none."""
    scorer = session.scorer_of(watched.scorer)
    return session.instrument_digests([scorer])[scorer]


def thresholds_of(session: Session, watched: Property) -> list[float]:
    """The thresholds fixed at round 0.

    Raises:
        RunError: round 0 fixed none, did not watch this property, or scored it with other files.
    """
    if not session.run.alarm(0).exists():
        raise RunError(
            f"{session.run.alarm(0)}: missing, and with it the thresholds; "
            f"run `python pipeline/alarm.py --run_dir {session.run.path} --round 0` first."
        )
    fixed = read_json(session.run.alarm(0))["properties"]
    for one in fixed:
        if one["scorer"] == watched.scorer and one["tail"] == watched.tail:
            if one["instrument"] != instrument_of(session, watched):
                raise RunError(
                    f"{session.run.alarm(0)}: the thresholds for {watched.scorer} come from scores with other files "
                    f"or another model behind `{session.scorer_of(watched.scorer)}`. Put those back, or give another "
                    "--run_dir to start a new run."
                )
            return list(one["thresholds"])
    first = ", ".join(dict.fromkeys(one["scorer"] for one in fixed))
    same = f"alarm_scorers: [{first}]" if first else f"headline_scorer: {read_json(session.run.drift(0))['headline']}"
    raise RunError(
        f"{session.run.alarm(0)}: has no thresholds for {watched.scorer} ({watched.tail} tail), which round 0 did not "
        "watch, and thresholds are fixed at round 0. Alarms watch `alarm_scorers`, or the headline where it is empty: "
        f"set `{same}` to watch the same as at round 0, or start a new --run_dir."
    )


def fix_thresholds(session: Session, watched: Property) -> tuple[tuple[float, ...], str]:
    """The thresholds for the whole run, from round 0, and a note on where they come from."""
    scores = session.run.stage_dir(0, "calibration") / "scores.parquet"
    if not scores.exists():
        own = read_panel(session.run.scores(0), watched.scorer, next(iter(session.probe_sets))).scores
        half = half_of(own, stage_seed(session.seed, "screen", 0))
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
