"""Rounds of generate -> refine -> distill -> measure, and what they did to the model, in the bulk and at the tails.

    accelerate launch pipeline/iterate.py                                     # the sandbox, blind-spot constitution
    accelerate launch pipeline/iterate.py --config recipes/sandbox-full/config.yaml
    accelerate launch pipeline/iterate.py --config RECIPE.yaml --dry_run      # check everything, print the plan, stop

Running the same command again resumes where the last one stopped, however it stopped.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pipeline import alarm, audit, command, distill, generate, measure, placebo, refine
from pipeline.errors import RunError
from pipeline.report.alarms import alarm_report, guarantee
from pipeline.report.audit import critic_values
from pipeline.report.audit_report import audit_report
from pipeline.report.calibration import calibration_report
from pipeline.report.checkpoints import Checkpoint, measured_rounds
from pipeline.report.console import cost_report, drift_report, rounds_report
from pipeline.report.costs import round_manifests
from pipeline.report.degeneration import degeneration_report
from pipeline.report.drift import metric_values
from pipeline.report.judge import judge_report, judge_values
from pipeline.report.page import write_page
from pipeline.report.trackers import mirror_of, mirror_rounds
from pipeline.runs import ranks
from pipeline.runs.files import read_json, write_json, write_text
from pipeline.runs.gate import choose, ends_run, guard_values
from pipeline.runs.rundir import RunDir
from pipeline.setup.plan import plan_report
from pipeline.setup.reaching import reach_servers
from pipeline.setup.session import Session, log
from pipeline.tails import SIGNLESS

EXIT_STATUS = {"amber": 3, "red": 4}
"""Exit status of ``--fail_on_alarm``, by the alarm's colour."""


@dataclass(frozen=True)
class IterateOptions:
    """Rounds of generate, refine, distill and measure."""

    dry_run: bool = field(
        default=False, metadata={"help": "Resolve and check everything, print the plan, write nothing."}
    )
    amend: str | None = field(
        default=None,
        metadata={"help": "Reason for continuing with a changed recipe or constitution; recorded in the run."},
    )
    fail_on_alarm: bool = field(
        default=False,
        metadata={
            "help": "Exit with status 3 after an amber alarm in any round, 4 after a red one. Under plain `python`: "
            "`accelerate launch` makes 1 of every failure."
        },
    )


def run_round(session: Session, round_: int) -> None:
    """Run one round; round 0 only measures the untouched base."""
    training = {"generate": generate.run, "refine": refine.run, "audit": audit.run, "distill": distill.run}
    for name, stage in training.items() if round_ else ():
        with command.at_work(name, round_):
            stage(session, round_)
    with command.at_work("measure", round_):
        drift = measure.run(session, round_)
    with command.at_work("alarm", round_):
        raised = alarm.run(session, round_)
    colors = {"alarm": raised["color"]}
    if session.recipe.placebo:
        with command.at_work("placebo", round_):
            colors["placebo_alarm"] = placebo.run_round(session, round_)["color"]
    if ranks.is_main():
        session.run.record_round(round_, _summary(session, round_) | colors, _metrics(session.run, round_))
        write_page([Checkpoint(session.run, r) for r in measured_rounds(session.run)], session.run.report)
        judged = [judge_report(read_json(session.run.judge(round_)))] if session.instruments.judging else []
        worn = [degeneration_report(read_json(session.run.degeneration(round_)))] if round_ else []
        calibrated = [calibration_report(drift["calibration"])] if drift.get("calibration") else []
        told = [drift_report(drift), *calibrated, *judged, *worn, *_audited(session, round_), alarm_report(raised)]
        log.info("\n%s\n", "\n\n".join(told))
        mirror_rounds(mirror_of(session.parsed, session.run), round_)
        write_text(session.run.done(round_), f"round {round_} is complete\n")
    ranks.barrier()
    session.forget_answers()


def _metrics(run: RunDir, round_: int) -> dict[str, float]:
    of_critic = critic_values(read_json(run.critic(round_))) if run.critic(round_).exists() else {}
    of_judge = judge_values(read_json(run.judge(round_))) if run.judge(round_).exists() else {}
    return metric_values(read_json(run.drift(round_))) | of_critic | of_judge


def _audited(session: Session, round_: int) -> list[str]:
    told = audit_report(session.run, rounds=[round_]) if round_ else ""
    return [told] if told else []


def _summary(session: Session, round_: int) -> dict[str, Any]:
    run = session.run
    adapter = session.adapter(round_)
    summary: dict[str, Any] = {"adapter_sha256": adapter.sha256 if adapter else None}
    if round_:
        refined = read_json(run.stage_dir(round_, "refine") / "manifest.json")
        distilled = read_json(run.stage_dir(round_, "distill") / "manifest.json")
        summary |= {
            "constitution_sha256": refined["constitution"],
            "dropped": refined["dropped"]["refinements.parquet"],
            "training_rows": distilled["sources"],
            "steps": distilled["steps"],
        }
    return summary


def _colors(session: Session) -> dict[int, str | None]:
    return {round_: read_json(session.run.alarm(round_))["color"] for round_ in session.run.finished_rounds()}


def _select(session: Session) -> None:
    """Record which round the run recommends."""
    run, recipe = session.run, session.recipe
    guard, low_is_bad = None, False
    if recipe.select == "best":
        scorer, _, quantity = (recipe.guard or f"{session.headline}/cvar_1pct").partition("/")
        drifts = {round_: read_json(run.drift(round_)) for round_ in run.finished_rounds()}
        guard, tail = guard_values(drifts, scorer, quantity)
        # A rate beyond a threshold counts bad answers, whichever end of the score they are at.
        low_is_bad = tail == "lower" and quantity not in SIGNLESS
    chosen = choose(_colors(session), recipe.on_alarm, guard, low_is_bad=low_is_bad)
    adapter = run.adapter_dir(chosen.round).relative_to(run.path) if chosen.round else None
    write_json(run.selected, {**chosen._asdict(), "adapter": str(adapter) if adapter else None})


def _report(session: Session, last: int) -> None:
    run = session.run
    manifests = [manifest for r in range(last + 1) for manifest in round_manifests(run, r)]
    log.info("%s\n", cost_report(manifests))
    _report_arm(run, last)
    if session.recipe.placebo:
        log.info("  The placebo arm, trained on unrevised answers:\n")
        _report_arm(run.placebo, last)
    if last:
        bound = guarantee(read_json(run.alarm(last)))
        log.info("%s\n", textwrap.fill(bound, 118, initial_indent="  ", subsequent_indent="  "))
    chosen = read_json(run.selected)
    log.info("Selected: %s (%s)\n", chosen["adapter"] or "the base, no adapter", chosen["why"])
    log.info(
        "The run is in %s; every score, interval and change is in round-*/drift.json, every sample in Parquet. "
        "Report: %s",
        run.path,
        run.report,
    )


def _report_arm(run: RunDir, last: int) -> None:
    drifts = [read_json(run.drift(r)) for r in range(last + 1)]
    log.info("%s\n", rounds_report(drifts, read_json(run.noise_floor())))
    colors = [read_json(run.alarm(r))["color"] for r in range(1, last + 1)]
    log.info("  alarms: %s\n", ", ".join(f"round {r} {color}" for r, color in enumerate(colors, 1)) or "no round yet")


def _require_records(run: RunDir, finished: Sequence[int]) -> None:
    """Refuse a finished round whose tables are gone: this command would fail the same way every time."""
    for round_ in finished:
        for path, name in ((run.drift(round_), "measure"), (run.alarm(round_), "alarm")):
            if not path.exists():
                raise RunError(
                    f"{path}: missing, although the round is complete; make it again with "
                    f"`python pipeline/{name}.py --run_dir {run.path} --round {round_}`."
                )


def _stopped(session: Session, round_: int) -> str:
    return (
        f"Stopped after round {round_} of {session.recipe.num_rounds} by its red alarm (on_alarm: "
        f"{session.recipe.on_alarm}). To continue anyway, run the same command with "
        '--on_alarm warn --amend "why".'
    )


def main(argv: Sequence[str]) -> None:
    """Run or resume all rounds of a recipe."""
    parsed = command.parse(argv, IterateOptions)
    if parsed.options.dry_run:
        session = command.check_session(parsed)
        log.info("%s", plan_report(session))
        with closing(session):
            reach_servers(session)
        return
    session = command.open_session(parsed, argv, reaching=True)
    try:
        finished = session.run.finished_rounds()
        _require_records(session.run, finished)
        rounds = range(session.recipe.num_rounds + 1)
        if all(r in finished for r in rounds):
            log.info("%s is complete. Its last round:\n", session.run.path)
            log.info("%s\n", drift_report(read_json(session.run.drift(rounds[-1]))))
        for round_ in rounds:
            if round_ not in finished:
                run_round(session, round_)
            if ends_run(session.recipe.on_alarm, read_json(session.run.alarm(round_))["color"]):
                break
        if ranks.is_main():
            _select(session)
            _report(session, round_)
            if round_ < rounds[-1]:
                log.info("%s", _stopped(session, round_))
        colors = set(_colors(session).values())
    finally:
        session.close()
    raised = [status for color, status in EXIT_STATUS.items() if color in colors]
    if parsed.options.fail_on_alarm and raised:
        sys.exit(max(raised))


if __name__ == "__main__":
    command.main(main)
