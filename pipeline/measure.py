"""Checkpoint -> scored probe samples -> drift table: the same prompts and the same noise in every round.

python pipeline/measure.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import command
from pipeline.probing import Probe, probe
from pipeline.report.card import write_card
from pipeline.report.console import drift_report
from pipeline.report.degeneration import degeneration_report, degeneration_table
from pipeline.report.drift import LEVEL, THRESHOLD_QUANTILE, drift_cells
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, read_json, write_json
from pipeline.session import log

if TYPE_CHECKING:
    from pipeline.session import Session

NOISE = "measure"
"""The noise of the panel: no round in it, so that every checkpoint meets the same."""


def run(session: Session, round_: int, *, renew: bool = False) -> dict[str, Any]:
    """Sample the probe sets under the round's policy, score the samples, and compare with earlier rounds.

    Returns the drift table (``drift.json``). ``renew`` measures again what was measured before an amendment.
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
    scores = probe(session, what, renew=renew)
    path = session.run.drift(round_)
    writes = ranks.is_main()
    stale = writes and not (path.exists() and read_json(path)["scores_sha256"] == file_sha256(scores))
    if writes and round_ and (stale or not session.run.degeneration(round_).exists()):
        panel = next(iter(session.probe_sets))
        write_json(session.run.degeneration(round_), degeneration_table(session.run, round_, panel))
    if stale:
        table = {
            "round": round_,
            "level": LEVEL,
            "threshold_quantile": THRESHOLD_QUANTILE,
            "headline": session.headline,
            "scores_sha256": file_sha256(scores),
            "cells": drift_cells(session.run, round_, session.columns, session.headline, session.seed),
        }
        write_json(path, table)
        if round_:
            write_card(session.run, round_)
    ranks.barrier()
    return dict(read_json(path))


def main(argv: Sequence[str]) -> None:
    """Measure, as a command on a run directory; prints the round's drift table."""
    command.run_stage(argv, _measure_and_show, first_round=0)


def _measure_and_show(session: Session, round_: int) -> None:
    log.info("%s", drift_report(run(session, round_, renew=True), every_scorer=True))
    if round_:
        log.info("\n%s", degeneration_report(read_json(session.run.degeneration(round_))))


if __name__ == "__main__":
    command.main(main)
