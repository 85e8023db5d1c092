"""What a run's alarms watch, and the thresholds that round 0 fixed for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import RunError
from pipeline.runs.files import read_json
from pipeline.scorers.battery import battery_columns

if TYPE_CHECKING:
    from pipeline.setup.session import Session
    from pipeline.tails.arrays import Tail


class Property(NamedTuple):
    """What an alarm watches: one end of one score."""

    scorer: str
    tail: Tail


def properties_of(session: Session) -> list[Property]:
    """The properties that the recipe watches; a score that is bad at both ends counts as two."""
    tails: dict[str, Sequence[Tail]] = {"high": ["upper"], "low": ["lower"], "both": ["upper", "lower"]}
    return [Property(column, tail) for column in watched_columns(session) for tail in tails[session.columns[column]]]


def watched_columns(session: Session) -> list[str]:
    """The columns that the recipe watches, all of sampled answers: only those can be drawn on fresh prompts."""
    watched = session.recipe.alarm_scorers or [session.headline]
    return [column for column in watched if column not in session.question_columns]


def watched_scorers(session: Session) -> list[str]:
    """The scorers that produce those columns."""
    return list(dict.fromkeys(session.scorer_of(column) for column in watched_columns(session)))


def battery_of(session: Session, watched: Property) -> str | None:
    """The column of log-probabilities that warns of a property: the first battery's, for the first property only."""
    if not session.instruments.batteries or watched != properties_of(session)[0]:
        return None
    return battery_columns(session.instruments.batteries[0])[0]


def instrument_of(session: Session, watched: Property) -> str | None:
    """Digest of the judge, rubric, classifier or files behind a watched score; None for one that reads none."""
    for battery in session.instruments.batteries:
        if watched.scorer in battery_columns(battery):
            return battery.sha256  # that of its own battery: others may be added to a run
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
