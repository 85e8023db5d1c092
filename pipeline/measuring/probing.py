"""Prompts -> sampled and scored answers of one checkpoint: how every measurement of a run is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engines.answers import Question, answer, failed_answers
from pipeline.engines.base import Adapter, Sampling
from pipeline.inputs.question_sets import is_question_set
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256
from pipeline.runs.lazy import Joined, Lazy, TableRows
from pipeline.runs.seeds import row_seed
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import SAMPLES, SCORES, read_table
from pipeline.scorers import QuestionScorer, build
from pipeline.scorers.rows import failed_items, score_asked, score_rows
from pipeline.setup.session import log

if TYPE_CHECKING:
    from pipeline.inputs.prompts import Prompt
    from pipeline.inputs.question_sets import Item, QuestionSet
    from pipeline.setup.session import Session

Row = dict[str, Any]


class Probe(NamedTuple):
    """What is asked of which checkpoint, and where the answers go.

    Attributes:
        folder: folder for the samples and scores.
        round: round in which they are taken.
        adapter: adapter of the checkpoint; None for the base.
        prompts: prompts by the name of their probe set.
        samples: number of samples per prompt.
        scorers: scorers, as a recipe names them.
        noise: name that goes into every sample's seed instead of the round: checkpoints probed under the same name
            get the same noise, so that their samples differ only where the checkpoints do.
    """

    folder: Path
    round: int
    adapter: Adapter | None
    prompts: Mapping[str, Sequence[Prompt]]
    samples: int
    scorers: Sequence[str]
    noise: str


def probe(session: Session, what: Probe, *, renew: bool = False, rescore: bool = False) -> Path:
    """Sample and score; return the path of the scores. What is already complete is not redone.

    Args:
        session: the open run.
        what: what to probe.
        renew: redo what was done with other settings, before an amendment.
        rescore: the same, but for the scores only; the samples stay.

    Scores of the same samples by a scorer that reads the same files are kept, whatever else changed.
    """
    _sample(session, what, renew)
    return _score(session, what, renew or rescore)


def _sample(session: Session, what: Probe, renew: bool) -> None:
    stage = Stage(
        what.folder,
        what.noise,
        what.round,
        inputs={"adapter": what.adapter.sha256 if what.adapter else None},
        settings=session.settings("measure", "sampling"),
        manifest_name="samples.manifest.json",
    )
    if stage.is_complete(renew=renew):
        return

    recipe = session.recipe
    longest = recipe.probe_max_new_tokens or recipe.max_new_tokens
    sampling = Sampling(recipe.probe_temperature, recipe.top_p, longest)
    prompts = [(name, prompt) for name, of_set in what.prompts.items() for prompt in of_set]

    def question(number: int) -> tuple[str, Question]:
        (name, prompt), sample = prompts[number // what.samples], number % what.samples
        return name, Question(prompt, sample, row_seed(session.seed, what.noise, None, prompt.id, sample))

    def work(chunk: Sequence[tuple[str, Question]]) -> Chunk:
        asked = [question for _, question in chunk]
        rows = answer(session.roles.policy(what.adapter), asked, sampling, what.round, session.model_name)
        named = [{"probe_set": name, **row} for (name, _), row in zip(chunk, rows, strict=True)]
        return Chunk(named, failed_answers(rows))

    whole = _whole_prompts(session, what)
    questions = Lazy(len(prompts) * what.samples, question)
    session.collect(stage, questions, work, SAMPLES, "samples.parquet", chunk_rows=whole)
    facts = stage_facts(stage.folder, ["samples.parquet"]) | session.describe_engine()
    stage.finish(["samples.parquet"], facts | {"chat_template": session.chat_template_sha256})


def _score(session: Session, what: Probe, renew: bool) -> Path:
    output = what.folder / "scores.parquet"
    digests = session.scorer_digests(what.scorers)
    stage = Stage(
        what.folder,
        "score",
        what.round,
        inputs={"samples": file_sha256(what.folder / "samples.parquet")},
        settings=session.settings("measure", "judge", scoring=True),
        manifest_name="scores.manifest.json",
    )
    if not stage.is_complete(renew=renew):
        kept = _still_good(stage, digests)
        missing = [entry for entry in what.scorers if entry not in kept]
        roles = session.roles
        judge = roles.named(str(session.recipe.judge), what.adapter) if session.instruments.judging else None
        instruments = replace(session.instruments, questions=_in_frozen_slices(session, what))
        scorers = build(missing, roles.policy(what.adapter), roles.base(), instruments, judge, session.classifiers)
        asking = [scorer for scorer in scorers if isinstance(scorer, QuestionScorer)]
        reading = [scorer for scorer in scorers if not isinstance(scorer, QuestionScorer)]
        samples: Sequence[Row] = TableRows(what.folder / "samples.parquet") if reading else []
        asked = [(scorer, item) for scorer in asking for item in scorer.questions.items]

        def work(chunk: Sequence[Row | tuple[QuestionScorer, Item]]) -> Chunk:
            rows = score_rows([one for one in chunk if isinstance(one, dict)], reading)
            rows += score_asked([one for one in chunk if isinstance(one, tuple)])
            return Chunk(rows, failed_items(rows))

        old = _rows_of(session, output, kept) if kept and ranks.is_main() else None
        # Samples first, so that what a chunk of them holds does not depend on the questions.
        items: Sequence[Row | tuple[QuestionScorer, Item]] = Joined(samples, asked)
        session.collect(stage, items, work, SCORES, output.name, chunk_rows=_whole_prompts(session, what), kept=old)
        read = {"scorers": digests, "instruments": session.instrument_digests(what.scorers)}
        stage.finish([output.name], stage_facts(what.folder, [output.name]) | session.describe_engine() | read)
        if ranks.is_main():
            _tell_of_failures(output)
    return output


def _tell_of_failures(scores: Path) -> None:
    """Warn of questions, classifiers and judges that gave no score at all: their tables would just be empty."""
    table = read_table(scores, ["probe_set", "scorer", "score", "reason"])
    groups = table.group_by(["probe_set", "scorer"], use_threads=False)
    for row in groups.aggregate([("score", "count"), ("reason", "min"), ("reason", "count")]).to_pylist():
        by_model = row["scorer"].startswith(("classifier.", "judge.", "self_judge."))
        may_not = is_question_set(row["probe_set"]) or by_model
        if may_not and not row["score_count"] and row["reason_count"]:
            log.warning(
                "%s on %s: no score for any of %s (%s)",
                row["scorer"],
                row["probe_set"],
                f"{row['reason_count']:,}",
                row["reason_min"],
            )


def _in_frozen_slices(session: Session, what: Probe) -> Mapping[str, QuestionSet[Any]]:
    """The question sets, each question in its slice of round 0: some slices are derived from the base's scores."""
    first = session.run.scores(0)
    names = [one.name for one in session.instruments.questions.values()]
    if not names or first.parent == what.folder or not first.exists():
        return session.instruments.questions
    table = read_table(first, ["probe_set", "prompt_id", "slice"])
    rows = table.filter(pc.is_in(table["probe_set"], pa.array(names, pa.string()))).to_pylist()
    known = {(row["probe_set"], row["prompt_id"]): row["slice"] for row in rows}
    return {
        entry: one._replace(
            items=tuple(item._replace(slice=known.get((one.name, item.id), item.slice)) for item in one.items)
        )
        for entry, one in session.instruments.questions.items()
    }


def _still_good(stage: Stage, digests: Mapping[str, str]) -> list[str]:
    """The entries whose scores of the same samples already exist, made with the same files and model."""
    if not stage.manifest_path.exists():
        return []
    manifest = stage.manifest()
    done = manifest.get("scorers", {}) if manifest["inputs"] == dict(stage.inputs) else {}
    return [entry for entry, digest in digests.items() if done.get(entry) == digest]


def _rows_of(session: Session, scores: Path, entries: Sequence[str]) -> pa.Table:
    """The rows of a score table that belong to these entries."""
    table = read_table(scores)
    found = []
    for entry in entries:
        wanted = pc.is_in(table["scorer"], pa.array(list(session.columns_of(entry)), pa.string()))
        if entry in session.instruments.questions:
            wanted = pc.and_(wanted, pc.equal(table["probe_set"], session.instruments.questions[entry].name))
        found.append(table.filter(wanted))
    return pa.concat_tables(found)


def _whole_prompts(session: Session, what: Probe) -> int:
    """Rows per chunk such that it holds all samples of its prompts, and prompts in pairs: some scores compare them."""
    pair = 2 * what.samples
    return max(session.recipe.chunk_rows // pair, 1) * pair
