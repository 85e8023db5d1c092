"""How much of innocent answers' content a round's rewrites kept: measured with the frozen base, for the audit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.inputs.templates import load_plain_question
from pipeline.report.critic import Row, TruthOf, known_truth, text_after
from pipeline.runs.lazy import TableRows
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import CONTENT
from pipeline.scorers.base import failures
from pipeline.scorers.content import ContentReader, Rewritten
from pipeline.setup.instruments import recall_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.setup.session import Session


def read_content(
    session: Session,
    stage: Stage,
    table: Path,
    output: str,
    truth_of: TruthOf,
    *,
    facts: Mapping[str, Sequence[str]],
) -> None:
    """Write the share of content that each rewrite of a faultless answer kept, one row per rewrite.

    Args:
        session: the open run.
        stage: stage that this work belongs to.
        table: path of the refinements.
        output: name of the table to write, in the stage's folder.
        truth_of: function that tells which answers are faultless.
        facts: facts that each answer's rewrite should keep, by prompt id; answers not in it count sentence by
            sentence.
    """
    if stage.is_complete():
        return

    recipe, keep = session.recipe, session.recipe.keep_dropped
    reader = ContentReader(session.roles.base(), load_plain_question(recall_file(recipe)))

    def work(rows: Sequence[Row]) -> Chunk:
        rewrites = [
            Rewritten(row["prompt"], row["response"], text_after(row, keep), facts.get(row["prompt_id"], ()))
            for row in rows
        ]
        read = reader.read(rewrites)
        found: list[dict[str, Any]] = [
            {
                **{name: row[name] for name in ("prompt_id", "sample", "revision_index", "principle_id")},
                **kept._asdict(),
                "score": kept.share.value,
                "reason": kept.share.reason,
            }
            for row, kept in zip(rows, read, strict=True)
        ]
        return Chunk(found, failures(kept.share for kept in read))

    session.collect(stage, _innocent(TableRows(table), truth_of, keep), work, CONTENT, output)
    stage.finish([output], stage_facts(stage.folder, [output]) | session.describe_engine())


def _innocent(rows: Iterable[Row], truth_of: TruthOf, keep: Sequence[str]) -> list[Row]:
    found = []
    for row in rows:
        truth = known_truth(row, truth_of, keep)
        if truth is not None and not truth.faulty:
            found.append(row)
    return found
