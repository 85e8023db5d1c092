"""Checkpoint -> scored probe samples -> drift table: the same prompts and the same noise in every round.

python pipeline/measure.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import command
from pipeline.report.card import write_card
from pipeline.report.console import drift_report
from pipeline.report.drift import LEVEL, THRESHOLD_QUANTILE, drift_cells
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, read_json, write_json
from pipeline.runs.seeds import row_seed
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import SAMPLES, SCORES, read_table
from pipeline.session import log

if TYPE_CHECKING:
    from pipeline.scorers import Scorer
    from pipeline.session import Session

Row = dict[str, Any]


def run(session: Session, round_: int, *, renew: bool = False) -> dict[str, Any]:
    """Sample the probe sets under the round's policy, score the samples, and compare with earlier rounds.

    Returns the drift table (``drift.json``). ``renew`` measures again what was measured before an amendment.
    """
    _sample(session, round_, renew)
    scores = _score(session, round_, renew)
    path = session.run.drift(round_)
    if ranks.is_main() and not (path.exists() and read_json(path)["scores_sha256"] == file_sha256(scores)):
        worse = {name: end for scorer in _scorers(session, round_) for name, end in scorer.columns.items()}
        headline = session.recipe.headline_scorer or next(iter(worse))
        table = {
            "round": round_,
            "level": LEVEL,
            "threshold_quantile": THRESHOLD_QUANTILE,
            "headline": headline,
            "scores_sha256": file_sha256(scores),
            "cells": drift_cells(session.run, round_, worse, headline, session.seed),
        }
        write_json(path, table)
        if round_:
            write_card(session.run, round_)
    ranks.barrier()
    return dict(read_json(path))


def _sample(session: Session, round_: int, renew: bool) -> None:
    adapter = session.adapter(round_)
    stage = Stage(
        session.run.stage_dir(round_, "measure"),
        "measure",
        round_,
        inputs={"adapter": adapter.sha256 if adapter else None},
        settings=session.settings("measure", "sampling"),
        manifest_name="samples.manifest.json",
    )
    if stage.is_complete(renew=renew):
        return
    from pipeline.engines.answers import Question, answer
    from pipeline.engines.base import Sampling

    recipe = session.recipe
    longest = recipe.probe_max_new_tokens or recipe.max_new_tokens
    sampling = Sampling(recipe.probe_temperature, recipe.top_p, longest)
    # No round in the seed: the same noise under every checkpoint, so that samples differ where policies do.
    questions = [
        (name, Question(prompt, sample, row_seed(session.seed, "measure", None, prompt.id, sample)))
        for name, probes in session.probe_sets.items()
        for prompt in probes.prompts
        for sample in range(recipe.probe_samples)
    ]

    def work(chunk: Sequence[tuple[str, Question]]) -> Chunk:
        before = session.roles.seconds
        asked = [question for _, question in chunk]
        rows = answer(session.roles.policy(adapter), asked, sampling, round_, session.model_name)
        named = [{"probe_set": name, **row} for (name, _), row in zip(chunk, rows, strict=True)]
        return Chunk(named, session.roles.seconds - before)

    stage.collect(questions, work, SAMPLES, "samples.parquet", recipe.chunk_rows)
    stage.finish(["samples.parquet"], stage_facts(stage.folder, ["samples.parquet"]) | session.describe_engine())


def _score(session: Session, round_: int, renew: bool) -> Path:
    folder = session.run.stage_dir(round_, "measure")
    output = folder / "scores.parquet"
    stage = Stage(
        folder,
        "score",
        round_,
        inputs={"samples": file_sha256(folder / "samples.parquet")},
        settings=session.settings("measure"),
        manifest_name="scores.manifest.json",
    )
    if not stage.is_complete(renew=renew):
        scorers = _scorers(session, round_)
        samples = read_table(folder / "samples.parquet").to_pylist()

        def work(rows: Sequence[Row]) -> Chunk:
            before = session.roles.seconds
            return Chunk(_score_rows(rows, scorers), session.roles.seconds - before)

        stage.collect(samples, work, SCORES, output.name, session.recipe.chunk_rows)
        stage.finish([output.name], stage_facts(folder, [output.name]) | session.describe_engine())
    return output


def _scorers(session: Session, round_: int) -> list[Scorer]:
    from pipeline.scorers import build

    return build(session.recipe.scorers, session.roles.policy(session.adapter(round_)), session.roles.base())


def _score_rows(rows: Sequence[Row], scorers: Sequence[Scorer]) -> list[Row]:
    from pipeline.scorers import Sample

    usable = [row for row in rows if row["drop_reason"] in (None, "empty")]
    samples = [Sample(row["prompt"], row["response"], row["token_ids"]) for row in usable]
    found: list[Row] = []
    for scorer in scorers:
        columns = scorer(samples)
        for column, scores in columns.items():
            of = {id(row): score for row, score in zip(usable, scores, strict=True)}
            for row in rows:
                score = of.get(id(row))
                found.append(
                    {
                        **{name: row[name] for name in ("prompt_id", "sample", "probe_set", "slice")},
                        "scorer": column,
                        "score": score.value if score else None,
                        "reason": score.reason if score else row["drop_reason"],
                    }
                )
    return found


def main(argv: Sequence[str]) -> None:
    """Measure, as a command on a run directory; prints the round's drift table."""
    command.run_stage(argv, _measure_and_show, first_round=0)


def _measure_and_show(session: Session, round_: int) -> None:
    log.info("%s", drift_report(run(session, round_, renew=True), every_scorer=True))


if __name__ == "__main__":
    command.main(main)
