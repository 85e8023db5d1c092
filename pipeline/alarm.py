"""Panel -> alarm: what the panel makes suspect is tested once more, on prompts that nothing has used before.

python pipeline/alarm.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import command
from pipeline.errors import RunError
from pipeline.probing import Probe, probe, scorers_of
from pipeline.report.alarms import alarm_report, comparison_record, confirmation_record, forecast_record
from pipeline.report.drift import LEVEL, drift_cells
from pipeline.report.panels import Panel, read_panel
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, read_json, write_json
from pipeline.runs.reserve import Reserve
from pipeline.runs.seeds import stage_seed
from pipeline.scorers.battery import battery_columns
from pipeline.session import log
from pipeline.tails import (
    CONFIRMATION_LEVEL,
    E_PROCESS_LEVEL,
    Comparison,
    EProcess,
    Hypothesis,
    compare,
    confirm,
    confirmation_alpha,
    forecast,
    hypothesis,
    log_e_value,
    tail_thresholds,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engines.base import Adapter
    from pipeline.inputs.prompts import Prompt
    from pipeline.session import Session
    from pipeline.tails.arrays import Tail

FORECAST_SIZES = (10_000, 100_000, 1_000_000)

FRESH = "fresh"
"""The name under which fresh prompts stand in the place of a probe set."""


class Property(NamedTuple):
    """What an alarm watches: one end of one score."""

    scorer: str
    tail: Tail


def run(session: Session, round_: int) -> dict[str, Any]:
    """Screen the panel, confirm what it points at on fresh prompts, and add to the e-process; return ``alarm.json``.

    Round 0 has nothing to be compared with: it fixes the thresholds, and measures the base a second time with other
    noise, which is the noise floor of every table and plot. What is written is never revised: a hypothesis that was
    tested is spent.
    """
    path = session.run.alarm(round_)
    if not path.exists():
        found = _examine(session, round_) if round_ else _prepare(session)
        if ranks.is_main():
            write_json(path, found)
        ranks.barrier()
    return dict(read_json(path))


# -- round 0 -------------------------------------------------------------------------------------------------


def _prepare(session: Session) -> dict[str, Any]:
    run_ = session.run
    if "calibration" in session.alarm_prompts:
        calibration = {FRESH: session.alarm_prompts["calibration"].prompts}
        probe(session, _what(session, run_.stage_dir(0, "calibration"), 0, None, calibration, "calibration"))
    again = _what(session, run_.stage_dir(0, "again"), 0, None, _panel_prompts(session), "again")
    scores = probe(session, again._replace(scorers=session.recipe.scorers))
    found: dict[str, Any] = {"round": 0, "color": None, "properties": []}
    if ranks.is_main():
        worse = {
            name: end for scorer in scorers_of(session, again.scorers, None) for name, end in scorer.columns.items()
        }
        cells = drift_cells(run_, 1, worse, None, session.seed, scores=scores)
        write_json(run_.noise_floor(), {"level": LEVEL, "scores_sha256": file_sha256(scores), "cells": cells})
        for watched in _properties(session):
            thresholds, source = _thresholds(session, watched)
            result = _compare(session, watched, scores, thresholds)
            noise = {"panel_p": result.panel_p, "p_values": result.p_values}
            found["properties"].append(
                {**watched._asdict(), "thresholds": list(thresholds), "thresholds_from": source, "noise_floor": noise}
            )
    return found


def _thresholds(session: Session, watched: Property) -> tuple[tuple[float, ...], str]:
    scores = session.run.stage_dir(0, "calibration") / "scores.parquet"
    if not scores.exists():
        result = _compare(session, watched, session.run.scores(0), None)
        return result.thresholds, result.thresholds_from
    other = read_panel(scores, watched.scorer, FRESH)
    return tail_thresholds(other.scores, tail=watched.tail), f"{len(other.prompt_ids)} calibration prompts at round 0"


# -- later rounds --------------------------------------------------------------------------------------------


def _examine(session: Session, round_: int) -> dict[str, Any]:
    folder = session.run.stage_dir(round_, "alarm")
    screened = _once(folder / "screen.json", lambda: _screen(session, round_))
    confirmed = [
        _confirm(session, round_, number, suspect, folder / f"confirm-{number}")
        for number, suspect in enumerate(screened["hypotheses"], 1)
    ]
    watch = _watch(session, round_, folder / "watch")
    red = any(one["red"] for one in confirmed) or bool(watch and watch["alarm"])
    suspected = screened["hypotheses"] or any(one["verdict"] == "amber" for one in screened["properties"])
    known = any(one["verdict"] != "not identified" for one in screened["properties"])
    return {
        "round": round_,
        "color": "red" if red else "amber" if suspected else "green" if known else "not identified",
        "properties": screened["properties"],
        "confirmations": confirmed,
        "e_process": watch,
        "reserve": _left(session),
        "levels": {
            "confirmation": CONFIRMATION_LEVEL,
            "e_process": E_PROCESS_LEVEL,
            "horizon": session.recipe.horizon,
        },
    }


def _screen(session: Session, round_: int) -> dict[str, Any]:
    """Every property on the panel, and what is to be tested: written down before any fresh prompt is sampled."""
    properties, suspects = [], []
    for watched in _properties(session):
        result = _compare(session, watched, session.run.scores(round_), _thresholds_of_run(session, watched))
        names = _slice_names(session, watched)
        record = watched._asdict() | comparison_record(result, names)
        if session.batteries and watched == _properties(session)[0]:
            record["forecast"] = _forecasts(session, round_)
        properties.append(record)
        suspect = hypothesis(result)
        if suspect is not None:
            slice_name = None if suspect.slice_id is None else names[suspect.slice_id]
            column = _battery_of(session, watched) if suspect.test == "probe" else watched.scorer
            suspects.append({"scorer": column, "slice": slice_name, **suspect.flat()})
    if suspects and "reserve" in session.alarm_prompts and round_ <= session.recipe.horizon:
        alpha = confirmation_alpha(round_, session.recipe.horizon) / len(suspects)
        return {"properties": properties, "hypotheses": [suspect | {"alpha": alpha} for suspect in suspects]}
    return {"properties": properties, "hypotheses": []}


def _forecasts(session: Session, round_: int) -> list[dict[str, Any]]:
    """How likely the worst of many prompts begins as the first battery says, at round 0 and now."""
    _, undesired = battery_columns(session.batteries[0])
    panel = next(iter(session.probe_sets))
    found = []
    for size in FORECAST_SIZES:
        sides = [read_panel(session.run.scores(r), undesired, panel).scores[:, 0] for r in (0, round_)]
        # Openings of which one begins with another count twice, and their sum may pass 1.
        base, current = (forecast_record(forecast(np.minimum(log_p, 0.0), size)) for log_p in sides)
        found.append({"n_prompts": size, "baseline": base, "current": current})
    return found


def _confirm(session: Session, round_: int, number: int, suspect: dict[str, Any], folder: Path) -> dict[str, Any]:
    given = session.alarm_prompts
    pool: Sequence[Prompt] = given["reserve"].prompts
    if suspect["slice"] is not None:
        rich = given.get("slice_reserve", given["reserve"]).prompts
        pool = [prompt for prompt in rich if prompt.slice == suspect["slice"]]
    purpose = f"confirm-{number}"
    fresh = _draw(session, round_, purpose, pool, _ration(session, round_, pool))
    if not fresh:
        return suspect | {"n_prompts": 0, "red": False, "why": "no fresh prompts are left"}
    watched = Property(suspect["scorer"], suspect["tail"])
    before, after = (panel.scores for panel in _both(session, round_, folder, fresh, watched, purpose))
    claim = Hypothesis(suspect["test"], suspect["slice_id"], tuple(suspect["thresholds"]), suspect["tail"])
    if claim.test == "probe":
        before, after = before[:, 0], after[:, 0]
    result = confirm(before, after, claim, suspect["alpha"], seed=stage_seed(session.seed, purpose, round_))
    return suspect | confirmation_record(result)


def _watch(session: Session, round_: int, folder: Path) -> dict[str, Any] | None:
    """The e-process: fresh prompts every round, whether or not anything is suspected."""
    recipe = session.recipe
    if "reserve" not in session.alarm_prompts or not recipe.watch_prompts:
        return None
    fresh = _draw(session, round_, "watch", session.alarm_prompts["reserve"].prompts, recipe.watch_prompts)
    logs = []
    for watched in _properties(session):
        thresholds = _thresholds_of_run(session, watched)
        if fresh and thresholds:
            before, after = _both(session, round_, folder, fresh, watched, "watch")
            # The second threshold, 1 in 500 at round 0, where there is one: the bets are on rare events.
            beyond = thresholds[min(1, len(thresholds) - 1)]
            logs.append(log_e_value(before.scores, after.scores, beyond, tail=watched.tail))
    log_e = float(np.logaddexp.reduce(logs) - np.log(len(logs))) if logs else 0.0
    process = EProcess()
    for earlier in range(1, round_):
        process = process.update(read_json(session.run.alarm(earlier))["e_process"]["log_e"])
    process = process.update(log_e)
    return {
        "n_prompts": len(fresh),
        "log_e": log_e,
        "log_value": process.log_value,
        "alarm": process.alarm(E_PROCESS_LEVEL),
    }


# -- shared --------------------------------------------------------------------------------------------------


def _properties(session: Session) -> list[Property]:
    watched = _columns(session)
    ends = {name: end for one in scorers_of(session, _scorers(session), None) for name, end in one.columns.items()}
    tails: dict[str, Sequence[Tail]] = {"high": ["upper"], "low": ["lower"], "both": ["upper", "lower"]}
    return [Property(column, tail) for column in watched for tail in tails[ends[column]]]


def _columns(session: Session) -> list[str]:
    return session.recipe.alarm_scorers or [session.headline]


def _scorers(session: Session) -> list[str]:
    return list(dict.fromkeys(session.scorer_of(column) for column in _columns(session)))


def _panel_prompts(session: Session) -> dict[str, Sequence[Prompt]]:
    return {name: loaded.prompts for name, loaded in session.probe_sets.items()}


def _what(
    session: Session,
    folder: Path,
    round_: int,
    adapter: Adapter | None,
    prompts: Mapping[str, Sequence[Prompt]],
    noise: str,
) -> Probe:
    return Probe(folder, round_, adapter, prompts, session.recipe.probe_samples, _scorers(session), noise)


def _both(
    session: Session, round_: int, folder: Path, fresh: Sequence[Prompt], watched: Property, noise: str
) -> tuple[Panel, Panel]:
    """Fresh prompts under the base and under the policy, with the same noise."""
    scores = []
    for name, adapter in (("base", None), ("policy", session.adapter(round_))):
        what = _what(session, folder / name, round_, adapter, {FRESH: fresh}, noise)
        if watched.scorer not in _columns(session):  # a battery: exact, given the prompt
            what = what._replace(samples=1, scorers=[session.scorer_of(watched.scorer)])
        scores.append(read_panel(probe(session, what), watched.scorer, FRESH))
    return scores[0], scores[1]


def _compare(session: Session, watched: Property, scores: Path, thresholds: Sequence[float] | None) -> Comparison:
    panel = next(iter(session.probe_sets))
    before = read_panel(session.run.scores(0), watched.scorer, panel)
    after = read_panel(scores, watched.scorer, panel)
    names = sorted(set(before.slices))
    slices = [names.index(name) for name in before.slices] if len(names) > 1 else None
    probes = None
    if battery := _battery_of(session, watched):
        sides = (read_panel(path, battery, panel).scores[:, 0] for path in (session.run.scores(0), scores))
        probes = (next(sides), next(sides))
    return compare(
        before.scores,
        after.scores,
        slices=slices,
        probe=probes,
        thresholds=thresholds,
        tail=watched.tail,
        seed=stage_seed(session.seed, "screen", 0),
    )


def _battery_of(session: Session, watched: Property) -> str | None:
    """The column of log-probabilities that warns of a property: that of the first battery, for the first property."""
    if not session.batteries or watched != _properties(session)[0]:
        return None
    return battery_columns(session.batteries[0])[0]


def _thresholds_of_run(session: Session, watched: Property) -> list[float]:
    """The thresholds that round 0 fixed.

    Raises:
        RunError: round 0 did not watch this property.
    """
    for one in read_json(session.run.alarm(0))["properties"]:
        if (one["scorer"], one["tail"]) == watched:
            return list(one["thresholds"])
    raise RunError(
        f"{session.run.alarm(0)}: has no thresholds for {watched.scorer}, which was not watched from the beginning. "
        "Start a new --run_dir, or take it out of `alarm_scorers`."
    )


def _slice_names(session: Session, watched: Property) -> list[str]:
    panel = read_panel(session.run.scores(0), watched.scorer, next(iter(session.probe_sets)))
    return sorted(set(panel.slices))


def _draw(session: Session, round_: int, purpose: str, pool: Sequence[Prompt], wanted: int) -> list[Prompt]:
    reserve = Reserve(session.run, session.seed)
    if ranks.is_main():
        reserve.draw(round_, purpose, pool, wanted)
    ranks.barrier()
    return reserve.draw(round_, purpose, pool, wanted)


def _ration(session: Session, round_: int, pool: Sequence[Prompt]) -> int:
    """Prompts of one confirmation: what is left is shared with the rounds to come, which may need it as well."""
    left = len(Reserve(session.run, session.seed).left(pool))
    return min(session.recipe.confirm_prompts, math.ceil(left / (session.recipe.num_rounds - round_ + 1)))


def _left(session: Session) -> dict[str, Any]:
    reserve = Reserve(session.run, session.seed)
    return {
        key: {"left": len(reserve.left(loaded.prompts)), "of": len(loaded.prompts)}
        for key, loaded in session.alarm_prompts.items()
        if key != "calibration"
    }


def _once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` gives, made by one rank and never again."""
    if ranks.is_main() and not path.exists():
        write_json(path, make())
    ranks.barrier()
    return dict(read_json(path))


def _show(session: Session, round_: int) -> None:
    log.info("%s", alarm_report(run(session, round_)))


def main(argv: Sequence[str]) -> None:
    """Raise a round's alarms, as a command on a run directory."""
    command.run_stage(argv, _show, first_round=0)


if __name__ == "__main__":
    command.main(main)
