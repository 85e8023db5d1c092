"""Checkpoint -> scored probe samples -> drift table: the same prompts and the same noise in every round.

    python pipeline/measure.py --run_dir runs/sandbox-blind-spot --round 1
    python pipeline/measure.py --run_dir runs/mine --add_scorers choice:corrigible.jsonl     # to all rounds so far

An added scorer scores the existing samples and asks its own questions; no answers are sampled again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import command
from pipeline.errors import InputError, RunError
from pipeline.measuring.judging import check_judges
from pipeline.measuring.noise_floor import measure_again
from pipeline.measuring.probing import Probe, probe
from pipeline.report.calibration import calibration_records, calibration_report
from pipeline.report.card import write_card
from pipeline.report.checkpoints import Checkpoint, measured_rounds
from pipeline.report.console import drift_report, rounds_report
from pipeline.report.degeneration import degeneration_report, degeneration_table
from pipeline.report.drift import LEVEL, THRESHOLD_QUANTILE, drift_cells, metric_values
from pipeline.report.judge import judge_report
from pipeline.report.made_with import named_rounds
from pipeline.report.page import write_page
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, read_json, write_json
from pipeline.runs.rundir import RunDir
from pipeline.setup.session import log

if TYPE_CHECKING:
    from pipeline.inputs.recipe import ParsedRecipe
    from pipeline.setup.session import Session

NOISE = "measure"
"""Name of the panel's noise: independent of the round, so that every checkpoint gets the same."""
_MANIFEST = "scores.manifest.json"


@dataclass(frozen=True)
class MeasureOptions:
    """Sample and score the probe sets of a round, or add scorers to rounds that are already measured."""

    round: int | Literal["all"] | None = field(
        default=None,
        metadata={"help": "Round to work on, or `all` measured ones; the first unfinished one when unset."},
    )
    add_scorers: list[str] = field(
        default_factory=list,
        metadata={"help": "Scorers to add to those of the run, in all rounds measured so far and in those to come."},
    )
    add_batteries: list[str] = field(
        default_factory=list, metadata={"help": "Battery files to add, for a new or existing `likelihood` scorer."}
    )
    amend: str | None = field(
        default=None, metadata={"help": "Reason for continuing with a changed recipe or constitution; recorded."}
    )


def run(session: Session, round_: int, *, renew: bool = False, rescore: bool = False) -> dict[str, Any]:
    """Sample the probe sets under the round's policy, score the samples, and compare with earlier rounds.

    Returns the drift table (``drift.json``). ``renew`` measures again what was measured before an amendment;
    ``rescore`` only scores it again.
    """
    what = Probe(
        folder=session.run.stage_dir(round_, "measure"),
        round=round_,
        adapter=session.adapter(round_),
        prompts={name: loaded.prompts for name, loaded in session.probe_sets.items()},
        samples=session.recipe.probe_samples,
        scorers=session.recipe.scorers,
        noise=NOISE,
    )
    scores = probe(session, what, renew=renew, rescore=rescore)
    check_judges(session, round_, renew=renew or rescore)
    if ranks.is_main():
        _compare(session, round_, scores)
    ranks.barrier()
    return dict(read_json(session.run.drift(round_)))


def _compare(session: Session, round_: int, scores: Path) -> None:
    """Write what is derived from the scores of a round, round 0 and the previous round, unless it is up to date."""
    run_, path = session.run, session.run.drift(round_)
    _require_same_instruments(run_, round_)
    digests = _scores_compared(run_, round_)
    stale = not (path.exists() and read_json(path)["scores_sha256"] == digests)
    if round_ and (stale or not run_.degeneration(round_).exists()):
        write_json(run_.degeneration(round_), degeneration_table(run_, round_, next(iter(session.probe_sets))))
    if stale:
        table = {
            "round": round_,
            "level": LEVEL,
            "threshold_quantile": THRESHOLD_QUANTILE,
            "headline": session.headline,
            "scores_sha256": digests,
            "cells": drift_cells(run_, round_, session.columns, session.headline, session.seed),
            "calibration": calibration_records(scores, session.seed),
        }
        write_json(path, table)
    run_.update_metrics(round_, metric_values(read_json(path)))
    if round_:
        write_card(run_, round_)


def _require_same_instruments(run_: RunDir, round_: int) -> None:
    """Refuse to compare scores of two rounds that another judge, rubric, classifier or file stands behind.

    Raises:
        RunError: an amendment changed one, and the earlier round was not scored again.
    """
    now = read_json(run_.scores(round_).with_name(_MANIFEST))["instruments"]
    for before in sorted({0, max(round_ - 1, 0)} - {round_}):
        earlier = read_json(run_.scores(before).with_name(_MANIFEST))["instruments"]
        if changed := [entry for entry in now if entry in earlier and earlier[entry] != now[entry]]:
            raise RunError(
                f"{run_.scores(before)}: round {before} was scored with other files or another model behind "
                f"{', '.join(changed)} than round {round_}. Score all rounds alike with "
                f"`python pipeline/measure.py --run_dir {run_.path} --round all`, then run the same command again."
            )


def _scores_compared(run_: RunDir, round_: int) -> dict[str, str]:
    """Digests of the scores that a round's drift table is computed from, by round."""
    paths = {str(r): run_.scores(r) for r in sorted({0, max(round_ - 1, 0), round_})}
    return {name: file_sha256(path) for name, path in paths.items() if path.exists()}


def main(argv: Sequence[str]) -> None:
    """Measure, as a command on a run directory; prints the round's drift table, or all rounds side by side."""
    parsed = command.parse(argv, MeasureOptions)
    options = parsed.options
    adds = bool(options.add_scorers or options.add_batteries)
    if adds and options.round not in (None, "all"):
        raise InputError(f"--round {options.round}: scorers are added to all rounds; leave --round out.")
    if adds:
        if whole := {word.partition("=")[0] for word in argv} & {"--scorers", "--batteries"}:
            raise InputError(f"{min(whole)}: the run knows its own; name only the new ones, after --add_scorers.")
        parsed = command.parse([*argv, *_with_added(parsed)], MeasureOptions)
    rounds = _rounds_so_far(Path(str(parsed.recipe.run_dir))) if adds or options.round == "all" else []
    session = command.open_session(parsed, argv, adding=adds, first_round=None if rounds else 0)
    try:
        if rounds:
            _measure_all(session, rounds)
        else:
            _measure_and_show(session, session.choose_round(options.round, first=0))
        session.forget_answers()
    finally:
        session.close()


def _with_added(parsed: ParsedRecipe) -> list[str]:
    """The recipe's lists with the additions, as command-line flags."""
    recipe, options = parsed.recipe, parsed.options
    scorers = dict.fromkeys([*recipe.scorers, *options.add_scorers])
    batteries = dict.fromkeys([*recipe.batteries, *options.add_batteries])
    return ["--scorers", *scorers, *(["--batteries", *batteries] if batteries else [])]


def _measure_and_show(session: Session, round_: int) -> None:
    drift = run(session, round_, renew=True)
    log.info("%s", drift_report(drift, every_scorer=True))
    later = [r for r in measured_rounds(session.run) if r > round_]
    if old := [
        r for r in later if read_json(session.run.drift(r))["scores_sha256"] != _scores_compared(session.run, r)
    ]:
        log.warning(
            "The drift tables of %s were computed from old scores; recompute them with --round all.", named_rounds(old)
        )
    if drift.get("calibration"):
        log.info("\n%s", calibration_report(drift["calibration"], in_full=True))
    if session.instruments.judging:
        log.info("\n%s", judge_report(read_json(session.run.judge(round_))))
    if round_:
        log.info("\n%s", degeneration_report(read_json(session.run.degeneration(round_))))


def _rounds_so_far(run_dir: Path) -> list[int]:
    if rounds := measured_rounds(RunDir(run_dir)):
        return rounds
    raise InputError(f"{run_dir}: no round has been measured yet; measure round 0 with `--round 0`.")


def _measure_all(session: Session, rounds: Sequence[int]) -> None:
    """Score everything sampled so far, in the run and its placebo arm, with the recipe's current scorers.

    Thresholds and alarms stay as they were: an alarm is raised once, on what was watched when its round ran.
    """
    arms = [session, session.at(session.run.placebo)] if session.run.placebo.path.exists() else [session]
    for arm in arms:
        for round_ in (round_ for round_ in rounds if arm.run.drift(round_).exists()):
            run(arm, round_, rescore=True)
            if round_ == 0 and arm.run.noise_floor().exists():
                measure_again(arm, rescore=True)
    ranks.barrier()
    floor = session.run.noise_floor()
    drifts = [read_json(session.run.drift(round_)) for round_ in rounds]
    log.info("%s", rounds_report(drifts, read_json(floor) if floor.exists() else None))
    for drift in drifts:
        if drift.get("calibration"):
            log.info("\nRound %d\n%s", drift["round"], calibration_report(drift["calibration"]))
    if ranks.is_main() and session.run.report.exists():
        write_page([Checkpoint(session.run, round_) for round_ in rounds], session.run.report)
        log.info("\nWrote %s anew.", session.run.report)


if __name__ == "__main__":
    command.main(main)
