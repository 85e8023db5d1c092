"""The critic's own errors, and proxy against gold, in every round.

python pipeline/audit.py runs/sandbox-blind-spot                        # report on a run, read-only
python pipeline/audit.py --run_dir runs/sandbox-blind-spot --round 1    # run the stage on a run directory

``iterate`` runs this stage in every round: on the sandbox it uses the round's own revisions, whose truth is known;
elsewhere the labelled answers of ``critic_labels``, and the judge if there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import command, refine
from pipeline.engines.answers import failed_answers
from pipeline.errors import RunError
from pipeline.inputs.labelled import load_labelled
from pipeline.inputs.places import find_file
from pipeline.inputs.prompt_sources import of_sandbox
from pipeline.measuring.kept_content import read_content
from pipeline.report.audit import (
    BY_POLICY,
    CONTENT,
    FINAL,
    FIRST,
    JUDGED,
    LABELLED,
    LABELLED_CONTENT,
    Knowledge,
    Ratings,
    critic_record,
    labelled_truth_of,
    sandbox_truth_of,
)
from pipeline.report.audit_report import audit_report
from pipeline.report.checkpoints import measured_rounds
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, write_json
from pipeline.runs.lazy import TableRows
from pipeline.runs.rundir import RunDir
from pipeline.runs.seeds import row_seed
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import REFINEMENTS, SCORES
from pipeline.scorers.judge import Judge
from pipeline.scorers.rows import failed_items, score_rows
from pipeline.setup.session import log

if TYPE_CHECKING:
    from pipeline.inputs.labelled import Labelled, LabelledAnswers
    from pipeline.setup.session import Session

Row = dict[str, Any]


def run(session: Session, round_: int) -> None:
    """Test the round's critic where the truth is known, and write ``critic.json``."""
    known = _knowledge(session)
    if known.labelled:
        _take_labelled(session, round_, known.labelled.items)
        _ask_policy(session, round_, known.labelled.items)
        _read_labelled_content(session, round_, known.labelled)
    if known.sandbox and session.recipe.critique:
        _read_content(session, round_)
    if known.ratings and session.recipe.audit_answers:
        _rate_answers(session, round_)
    if ranks.is_main():
        write_json(session.run.critic(round_), critic_record(session.run, round_, known))
    ranks.barrier()


def _knowledge(session: Session) -> Knowledge:
    labels, judging = session.recipe.critic_labels, session.instruments.judging
    labelled = load_labelled(find_file(labels, "critic_labels"), session.constitution) if labels else None
    sandbox = of_sandbox(session.recipe.prompts)
    if judging is None:
        return Knowledge(sandbox, labelled)

    # The first rubric on which high is bad, that is, what a policy should avoid rather than aim for; else the first.
    name = min(judging.rubrics, key=lambda one: judging.rubrics[one].worse != "high")
    rubric = judging.rubrics[name]
    return Knowledge(sandbox, labelled, Ratings(judging.column(name), rubric.worse, *rubric.range))


def _stage(session: Session, round_: int, output: str, **inputs: Any) -> Stage:
    adapter = session.adapter(round_ - 1)
    return Stage(
        session.run.stage_dir(round_, "audit"),
        "audit",
        round_,
        inputs={**inputs, "adapter": adapter.sha256 if adapter else None},
        settings=session.settings("refine", "sampling", "judge", scoring=True),
        manifest_name=f"{Path(output).stem}.manifest.json",
    )


def _take_labelled(session: Session, round_: int, items: Sequence[Labelled]) -> None:
    """Have the round's critic and reviser process the labelled answers, each under its own principle."""
    stage = _stage(session, round_, LABELLED)
    if stage.is_complete():
        return

    reviser = refine.Reviser(session, round_)

    def work(chunk: Sequence[Labelled]) -> Chunk:
        revised = reviser.revise(_drafts_of(session, round_, chunk), 0)
        return Chunk(revised, failed_answers(revised))

    session.collect(stage, items, work, REFINEMENTS, LABELLED)
    stage.finish([LABELLED], stage_facts(stage.folder, [LABELLED]) | session.describe_engine())


def _ask_policy(session: Session, round_: int, items: Sequence[Labelled]) -> None:
    """Put the critic's questions to the policy being revised as well, unless that policy is the critic."""
    adapter, recipe = session.adapter(round_ - 1), session.recipe
    if recipe.critic == "policy" or (recipe.critic == "base" and adapter is None):
        return
    stage = _stage(session, round_, BY_POLICY)
    if stage.is_complete():
        return
    reviser = refine.Reviser(session, round_)

    def work(chunk: Sequence[Labelled]) -> Chunk:
        drafts = _drafts_of(session, round_, chunk)
        said = reviser.criticise(session.roles.policy(adapter), drafts, 0)
        criticised = [
            {
                **draft.row,
                "revision_index": 0,
                "principle_id": draft.principle.id,
                "response": draft.text,
                "critique": critique.text,
                "finish_reason": critique.finish_reason,
                "error": critique.error,
                "prompt_tokens": critique.prompt_tokens,
                "new_tokens": critique.new_tokens,
            }
            for draft, critique in zip(drafts, said, strict=True)
        ]
        failed = [str(critique.error) for critique in said if critique.finish_reason == "error"]
        return Chunk(criticised, failed)

    session.collect(stage, items, work, REFINEMENTS, BY_POLICY)
    stage.finish([BY_POLICY], stage_facts(stage.folder, [BY_POLICY]) | session.describe_engine())


def _drafts_of(session: Session, round_: int, items: Sequence[Labelled]) -> list[refine.Draft]:
    adapter = session.adapter(round_ - 1)
    rows = [
        {
            "prompt_id": item.id,
            "sample": 0,
            "round": round_,
            "model": session.model_name,
            "adapter_sha256": adapter.sha256 if adapter else None,
            "prompt": item.prompt,
            "slice": "",
        }
        for item in items
    ]
    return [refine.Draft(row, item.response, item.principle) for row, item in zip(rows, items, strict=True)]


def _read_labelled_content(session: Session, round_: int, labelled: LabelledAnswers) -> None:
    table = session.run.stage_dir(round_, "audit") / LABELLED
    facts = {item.id: item.facts for item in labelled.items}
    stage = _stage(session, round_, LABELLED_CONTENT, refinements=file_sha256(table))
    read_content(session, stage, table, LABELLED_CONTENT, labelled_truth_of(labelled), facts=facts)


def _read_content(session: Session, round_: int) -> None:
    table = _refinements(session, round_)
    stage = _stage(session, round_, CONTENT, refinements=file_sha256(table))
    truth_of = sandbox_truth_of(session.run, round_)
    read_content(session, stage, table, CONTENT, truth_of, facts={})


def _rate_answers(session: Session, round_: int) -> None:
    """Have the judge rate some of the round's answers, both as first given and after the rewrites."""
    refinements = _refinements(session, round_)
    stage = _stage(session, round_, JUDGED, refinements=file_sha256(refinements))
    if stage.is_complete():
        return

    recipe = session.recipe
    judge = session.roles.named(str(recipe.judge), session.adapter(round_ - 1))
    judging = session.instruments.judging
    assert judging is not None
    scorers = [Judge(rubric, judging, judge) for rubric in judging.rubrics.values()]

    def work(rows: Sequence[Row]) -> Chunk:
        scores = score_rows(rows, scorers)
        return Chunk(scores, failed_items(scores))

    session.collect(stage, _drawn(session, TableRows(refinements)), work, SCORES, JUDGED)
    stage.finish([JUDGED], stage_facts(stage.folder, [JUDGED]) | session.describe_engine())


def _drawn(session: Session, rows: Iterable[Row]) -> list[Row]:
    """Answers to the same prompts in every round, before and after the rewrites."""
    chains = (list(chain) for _, chain in groupby(rows, key=_answer))
    usable = (chain for chain in chains if chain[0]["principle_id"] is not None)
    drawn = nsmallest(
        session.recipe.audit_answers,
        usable,
        key=lambda chain: row_seed(session.seed, "audit", None, *_answer(chain[0])),
    )
    items = []
    for chain in drawn:
        finals = [row["final"] for row in chain if row["final"] is not None]
        for which, text in ((FIRST, chain[0]["response"]), (FINAL, finals[-1] if finals else None)):
            if text is not None:
                items.append({**chain[0], "probe_set": which, "response": text, "token_ids": [], "drop_reason": None})
    return items


def _answer(row: Row) -> tuple[str, int]:
    """The answer that a row revises; rows of the same answer are adjacent."""
    return row["prompt_id"], row["sample"]


def _refinements(session: Session, round_: int) -> Path:
    path = session.run.stage_dir(round_, "refine") / "refinements.parquet"
    if not path.exists():
        again = f"`python pipeline/refine.py --run_dir {session.run.path} --round {round_}`"
        raise RunError(f"{path}: missing; run {again} first.")
    return path


def _run_and_show(session: Session, round_: int) -> None:
    run(session, round_)
    log.info("%s", audit_report(session.run, rounds=[round_]))


def main(argv: Sequence[str]) -> None:
    """Report on the critics of existing runs, writing nothing; or run the stage, if a run's flags are given."""
    if any(word.startswith(("--run_dir", "--config")) for word in argv):
        command.run_stage(argv, _run_and_show, first_round=1)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory")
    for name in parser.parse_args(argv).runs:
        found = RunDir(Path(name))
        measured_rounds(found)
        text = audit_report(found)
        log.info("%s\n\n%s\n", name, text or "  nothing is known about its critic: no truth, no labels, no judge")


if __name__ == "__main__":
    command.main(main)
