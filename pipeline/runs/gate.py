"""What alarms decide: whether a run continues, and which of its rounds it recommends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

OnAlarm = Literal["warn", "stop", "rollback"]


class Guard(NamedTuple):
    """A quantity by round, and which end of the score is bad (``upper`` or ``lower``)."""

    values: Mapping[int, float]
    tail: str


class Choice(NamedTuple):
    """The round that a run recommends, and why."""

    round: int
    why: str


def ends_run(on_alarm: OnAlarm, color: str | None) -> bool:
    """Whether a run ends after a round with an alarm of this colour."""
    return color == "red" and on_alarm != "warn"


def choose(
    colors: Mapping[int, str | None],
    on_alarm: OnAlarm,
    guard: Mapping[int, float] | None,
    *,
    low_is_bad: bool = False,
) -> Choice:
    """Choose among the finished rounds.

    Args:
        colors: colours of the finished rounds' alarms, from round 0 on.
        on_alarm: ``rollback`` excludes the first red round and all later ones.
        guard: value of each round; the best is chosen, the earliest if tied. None chooses the last round.
        low_is_bad: whether low values of the guard are the bad ones.
    """
    first_red = min((round_ for round_, color in colors.items() if color == "red"), default=None)
    allowed = [r for r in sorted(colors) if on_alarm != "rollback" or first_red is None or r < first_red]
    rolled = f"rolled back: round {first_red} raised a red alarm" if len(allowed) < len(colors) else ""
    if guard is None:
        return Choice(allowed[-1], rolled or "the last round")
    known = [round_ for round_ in allowed if round_ in guard]
    if not known:
        return Choice(allowed[-1], rolled or "the last round: the guard is not identified in any")
    best = min(known, key=lambda round_: (-guard[round_] if low_is_bad else guard[round_], round_))
    return Choice(best, "; ".join(filter(None, [rolled, f"the best by the guard: {guard[best]:.4g}"])))


def guard_values(drifts: Mapping[int, Mapping[str, Any]], scorer: str, quantity: str) -> Guard:
    """A quantity by round, on the first probe set on which the scorer has a score in any round.

    Rounds where it is not identified are left out. Of a score with two bad ends, the upper one counts.
    """
    known = {
        round_: [cell for cell in drift["cells"] if cell["scorer"] == scorer and cell["value"] is not None]
        for round_, drift in drifts.items()
    }
    scored = {cell["probe_set"] for cells in known.values() for cell in cells}
    # Tables have the probe sets in the order of the recipe. A scorer may be about a later one only.
    named = (cell["probe_set"] for drift in drifts.values() for cell in drift["cells"] if cell["scorer"] == scorer)
    first = next((probe_set for probe_set in named if probe_set in scored), None)
    place = (quantity, first, None)
    asked = {
        round_: [cell for cell in cells if (cell["quantity"], cell["probe_set"], cell["slice"]) == place]
        for round_, cells in known.items()
    }
    tail = "lower" if {cell["tail"] for cells in asked.values() for cell in cells} == {"lower"} else "upper"
    values = {round_: [cell["value"] for cell in cells if cell["tail"] == tail] for round_, cells in asked.items()}
    return Guard({round_: found[0] for round_, found in values.items() if found}, tail)
