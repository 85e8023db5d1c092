"""Panel -> alarm: whatever looks suspect on the panel is tested once more, on prompts that nothing has used before.

python pipeline/alarm.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import command
from pipeline.errors import RunError
from pipeline.measuring.noise_floor import measure_again
from pipeline.measuring.probing import Probe, probe
from pipeline.measuring.screening import FRESH, compare_with_base, fix_thresholds, forecasts
from pipeline.report.alarms import alarm_report, confirmation_record
from pipeline.report.panels import Panel, read_panel
from pipeline.runs import ranks
from pipeline.runs.files import read_json, write_json
from pipeline.runs.seeds import stage_seed
from pipeline.setup.session import log
from pipeline.setup.watched import (
    Property,
    battery_of,
    instrument_of,
    properties_of,
    thresholds_of,
    watched_scorers,
)
from pipeline.tails import (
    CONFIRMATION_LEVEL,
    E_PROCESS_LEVEL,
    EProcess,
    Hypothesis,
    comparison_record,
    confirm,
    confirmation_alpha,
    hypothesis,
    log_e_value,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engines.base import Adapter
    from pipeline.inputs.prompts import Prompt
    from pipeline.setup.session import Session


def run(session: Session, round_: int) -> dict[str, Any]:
    """Screen the panel, confirm what it flags on fresh prompts, and update the e-process; return ``alarm.json``.

    Round 0 has nothing to be compared with: it fixes the thresholds, and measures the base a second time with
    different noise, which gives the noise floor of every table and plot. What is written is never revised: a
    hypothesis that has been tested is spent.

    Raises:
        RunError: the alarm that is there belongs to another adapter, or to other answers of it.
    """
    path = session.run.alarm(round_)
    # Rank 0 looks: a slow rank might find the file that a fast one has just written, and leave that one waiting below.
    if not ranks.from_main(ranks.is_main() and path.exists()):
        found = _examine(session, round_) if round_ else _prepare(session)
        if ranks.is_main():
            write_json(path, found)
        ranks.barrier()
    return _read_own(session, round_, path)


# -- round 0 -------------------------------------------------------------------------------------------------


def _prepare(session: Session) -> dict[str, Any]:
    if "calibration" in session.alarm_prompts:
        calibration = {FRESH: session.alarm_prompts["calibration"].prompts}
        probe(session, _what(session, session.run.stage_dir(0, "calibration"), 0, None, calibration, "calibration"))
    scores = measure_again(session)
    found: dict[str, Any] = {"round": 0, "color": None, "properties": []}
    if ranks.is_main():
        for watched in properties_of(session):
            thresholds, source = fix_thresholds(session, watched)
            result, _ = compare_with_base(session, watched, scores, thresholds)
            noise = {"panel_p": result.panel_p, "p_values": result.p_values}
            found["properties"].append(
                watched._asdict()
                | {"thresholds": list(thresholds), "thresholds_from": source, "noise_floor": noise}
                | {"instrument": instrument_of(session, watched)}
            )
    return found


# -- later rounds --------------------------------------------------------------------------------------------


def _examine(session: Session, round_: int) -> dict[str, Any]:
    folder = session.run.stage_dir(round_, "alarm")
    session.ledger.require(_recorded_draws(session))
    screened = _once(session, round_, folder / "screen.json", lambda: _screen(session, round_))
    confirmed = [
        _confirm(session, round_, number, suspect, folder / f"confirm-{number}")
        for number, suspect in enumerate(screened["hypotheses"], 1)
    ]
    watch = _watch(session, round_, folder / "watch")
    red = any(one["red"] for one in confirmed) or bool(watch and watch["alarm"])
    suspected = screened["suspected"] or any(one["verdict"] == "amber" for one in screened["properties"])
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
            "spent": screened["spent"],
        },
        "made_from": screened["made_from"],
    }


def _screen(session: Session, round_: int) -> dict[str, Any]:
    """Screen every property on the panel and record the hypotheses to test before any fresh prompt is sampled."""
    properties, suspects = [], []
    for watched in properties_of(session):
        result, names = compare_with_base(
            session, watched, session.run.scores(round_), thresholds_of(session, watched)
        )
        record = watched._asdict() | comparison_record(result, names)
        if battery_of(session, watched):
            record["forecast"] = forecasts(session, round_)
        properties.append(record)
        suspect = hypothesis(result)
        if suspect is not None:
            slice_name = None if suspect.slice_id is None else names[suspect.slice_id]
            suspects.append({"scorer": watched.scorer, "test": "tail_max", "slice": slice_name, **suspect.flat()})
    hypotheses = []
    made_from = _made_from(session, round_)
    # A round that is trained again is tested again, and spends the share of another round.
    spent = len(session.ledger.tested() - {(round_, made_from["adapter"])})
    in_time = max(round_, spent + 1) <= session.recipe.horizon
    if suspects and "reserve" in session.alarm_prompts and in_time:
        alpha = confirmation_alpha(round_, session.recipe.horizon) / len(suspects)
        hypotheses = [suspect | {"alpha": alpha} for suspect in suspects]
    return {
        "properties": properties,
        "suspected": bool(suspects),
        "hypotheses": hypotheses,
        "spent": spent,
        "made_from": made_from,
    }


def _confirm(session: Session, round_: int, number: int, suspect: dict[str, Any], folder: Path) -> dict[str, Any]:
    pool = _to_confirm_with(session, suspect["slice"])
    purpose = f"confirm-{number}"
    fresh = _draw(session, round_, purpose, pool, _ration(session, round_, pool))
    if not fresh:
        where = f" in the slice {suspect['slice']}" if suspect["slice"] is not None else ""
        why = "no fresh prompts are left" if pool else f"the reserve has no prompts for it{where}"
        return suspect | {"n_prompts": 0, "red": False, "why": why}
    watched = Property(suspect["scorer"], suspect["tail"])
    before, after = _both(session, round_, folder, fresh, watched, purpose)
    claim = Hypothesis(suspect["slice_id"], tuple(suspect["thresholds"]), suspect["tail"])
    seed = stage_seed(session.seed, purpose, round_)
    result = confirm(before.scores, after.scores, claim, suspect["alpha"], seed=seed)
    return suspect | confirmation_record(result)


def _to_confirm_with(session: Session, slice_: str | None) -> Sequence[Prompt]:
    """The prompts that a suspicion may be tested on: of the suspected slice, and not those meant for the e-process.

    What the e-process will watch is set aside first, or each suspicion would take its slice's prompts from it; but at
    most half of a small reserve is.
    """
    given = session.alarm_prompts
    reserve = given["reserve"].prompts
    wanted = min(session.recipe.watch_prompts * session.recipe.num_rounds, len(reserve) // 2)
    watched = {prompt.id for prompt in session.ledger.first(reserve, wanted)}
    pool = given["slice_reserve"].prompts if slice_ is not None and "slice_reserve" in given else reserve
    return [prompt for prompt in pool if prompt.id not in watched and slice_ in (None, prompt.slice)]


def _watch(session: Session, round_: int, folder: Path) -> dict[str, Any] | None:
    """The e-process: fresh prompts every round, whether or not anything is suspected."""
    recipe = session.recipe
    if "reserve" not in session.alarm_prompts or not recipe.watch_prompts:
        return None
    fresh = _draw(session, round_, "watch", session.alarm_prompts["reserve"].prompts, recipe.watch_prompts)
    logs = []
    for watched in properties_of(session):
        thresholds = thresholds_of(session, watched)
        if fresh and thresholds:
            before, after = _both(session, round_, folder, fresh, watched, "watch")
            # The second threshold (1 in 500 at round 0) if there is one, since the bets are on rare events.
            beyond = thresholds[min(1, len(thresholds) - 1)]
            logs.append(log_e_value(before.scores, after.scores, beyond, tail=watched.tail))
    log_e = float(np.logaddexp.reduce(logs) - np.log(len(logs))) if logs else 0.0
    process = EProcess()
    for earlier in range(1, round_):
        watched_then = read_json(session.run.alarm(earlier))["e_process"]
        process = process.update(watched_then["log_e"] if watched_then else 0.0)  # no bet was made in that round
    process = process.update(log_e)
    return {
        "n_prompts": len(fresh),
        "log_e": log_e,
        "log_value": process.log_value,
        "alarm": process.alarm(E_PROCESS_LEVEL),
    }


# -- shared --------------------------------------------------------------------------------------------------


def _what(
    session: Session,
    folder: Path,
    round_: int,
    adapter: Adapter | None,
    prompts: Mapping[str, Sequence[Prompt]],
    noise: str,
) -> Probe:
    return Probe(folder, round_, adapter, prompts, session.recipe.probe_samples, watched_scorers(session), noise)


def _both(
    session: Session, round_: int, folder: Path, fresh: Sequence[Prompt], watched: Property, noise: str
) -> tuple[Panel, Panel]:
    """Scores of fresh prompts under the base and under the policy, sampled with the same noise."""
    scores, ids = [], {prompt.id for prompt in fresh}
    for name, adapter in (("base", None), ("policy", session.adapter(round_))):
        what = _what(session, folder / name, round_, adapter, {FRESH: fresh}, noise)
        panel = read_panel(probe(session, what), watched.scorer, FRESH)
        if not ids.issuperset(panel.prompt_ids):  # the base's answers say nothing of the policy they were drawn for
            raise RunError(
                f"{what.folder}: answers fresh prompts of an earlier version of round {round_}. Delete "
                f"{session.run.stage_dir(round_, 'alarm')} to test the round as it is now."
            )
        scores.append(panel)
    return scores[0], scores[1]


def _draw(session: Session, round_: int, purpose: str, pool: Sequence[Prompt], wanted: int) -> list[Prompt]:
    adapter = session.adapter(round_)
    digest = adapter.sha256 if adapter else None
    # Rank 0 writes the draw into the ledger; then every rank, rank 0 included, reads the same draw from it.
    if ranks.is_main():
        session.ledger.draw(round_, purpose, digest, pool, wanted)
    ranks.barrier()
    return session.ledger.draw(round_, purpose, digest, pool, wanted)


def _recorded_draws(session: Session) -> list[tuple[int, str]]:
    """Round and purpose of every draw that the alarms so far were decided on."""
    found = []
    for round_ in range(1, session.recipe.num_rounds + 1):
        if session.run.alarm(round_).exists():
            raised = read_json(session.run.alarm(round_))
            found += [(round_, f"confirm-{i}") for i, one in enumerate(raised["confirmations"], 1) if one["n_prompts"]]
            found += [(round_, "watch")] if raised["e_process"] and raised["e_process"]["n_prompts"] else []
    return found


def _ration(session: Session, round_: int, pool: Sequence[Prompt]) -> int:
    """Number of prompts for one confirmation: what is left is shared with later rounds, which may need it too."""
    left = len(session.ledger.left(pool))
    return min(session.recipe.confirm_prompts, math.ceil(left / (session.recipe.num_rounds - round_ + 1)))


def _left(session: Session) -> dict[str, Any]:
    return {
        key: {"left": len(session.ledger.left(loaded.prompts)), "of": len(loaded.prompts)}
        for key, loaded in session.alarm_prompts.items()
        if key != "calibration"
    }


def _once(session: Session, round_: int, path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of ``make``, computed once, on rank 0, and read from ``path`` from then on."""
    if ranks.is_main() and not path.exists():
        write_json(path, make())
    ranks.barrier()
    return _read_own(session, round_, path)


def _made_from(session: Session, round_: int) -> dict[str, Any]:
    """Digests of the adapter that a round's alarm is about, and of the answers on the panel that are compared."""
    adapter = session.adapter(round_)
    # Not of the scores: scorers that are added later change their table, but nothing that an alarm is about.
    manifests = {str(r): session.run.scores(r).with_name("scores.manifest.json") for r in (0, round_)}
    samples = {name: read_json(path)["inputs"]["samples"] for name, path in manifests.items()}
    return {"adapter": adapter.sha256 if adapter else None, "samples": samples}


def _read_own(session: Session, round_: int, path: Path) -> dict[str, Any]:
    """What an alarm has recorded, if it is about this adapter and these answers; at round 0 there is only one."""
    found = dict(read_json(path))
    if round_ and (recorded := found["made_from"]) != (now := _made_from(session, round_)):
        changed = [name for name in now if recorded[name] != now[name]]
        raise RunError(
            f"{path}: belongs to an earlier version of round {round_} ({' and '.join(changed)} changed since). Delete "
            f"{session.run.alarm(round_)} and {session.run.stage_dir(round_, 'alarm')} to test the round as it is now."
        )
    return found


def _show(session: Session, round_: int) -> None:
    log.info("%s", alarm_report(run(session, round_)))


def main(argv: Sequence[str]) -> None:
    """Evaluate a round's alarms, as a command on a run directory."""
    command.run_stage(argv, _show, first_round=0)


if __name__ == "__main__":
    command.main(main)
