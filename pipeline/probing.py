"""Prompts -> sampled and scored answers under one checkpoint: how every measurement of a run is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.runs.files import file_sha256
from pipeline.runs.seeds import row_seed
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import SAMPLES, SCORES, read_table

if TYPE_CHECKING:
    from pipeline.engines.base import Adapter
    from pipeline.inputs.prompts import Prompt
    from pipeline.session import Session

Row = dict[str, Any]


class Probe(NamedTuple):
    """What is asked, of whom, and where the answers go.

    Attributes:
        folder: of the samples and scores.
        round: in which they are taken.
        adapter: of the checkpoint; None for the base.
        prompts: by the name of their set.
        samples: of every prompt.
        scorers: as a recipe names them.
        noise: name that goes into every sample's seed, in place of the round: checkpoints probed under one name meet
            the same noise, so that their samples differ where the checkpoints do.
    """

    folder: Path
    round: int
    adapter: Adapter | None
    prompts: Mapping[str, Sequence[Prompt]]
    samples: int
    scorers: Sequence[str]
    noise: str


def probe(session: Session, what: Probe, *, renew: bool = False) -> Path:
    """Sample and score; return the path of the scores. What is complete already is not done again.

    Args:
        session: the open run.
        what: to probe.
        renew: do again what was done with other settings, before an amendment.
    """
    _sample(session, what, renew)
    return _score(session, what, renew)


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
    from pipeline.engines.answers import Question, answer
    from pipeline.engines.base import Sampling

    recipe = session.recipe
    longest = recipe.probe_max_new_tokens or recipe.max_new_tokens
    sampling = Sampling(recipe.probe_temperature, recipe.top_p, longest)
    questions = [
        (name, Question(prompt, sample, row_seed(session.seed, what.noise, None, prompt.id, sample)))
        for name, prompts in what.prompts.items()
        for prompt in prompts
        for sample in range(what.samples)
    ]

    def work(chunk: Sequence[tuple[str, Question]]) -> Chunk:
        before = session.roles.seconds
        asked = [question for _, question in chunk]
        rows = answer(session.roles.policy(what.adapter), asked, sampling, what.round, session.model_name)
        named = [{"probe_set": name, **row} for (name, _), row in zip(chunk, rows, strict=True)]
        return Chunk(named, session.roles.seconds - before)

    stage.collect(questions, work, SAMPLES, "samples.parquet", _whole_prompts(session, what))
    stage.finish(["samples.parquet"], stage_facts(stage.folder, ["samples.parquet"]) | session.describe_engine())


def _score(session: Session, what: Probe, renew: bool) -> Path:
    output = what.folder / "scores.parquet"
    stage = Stage(
        what.folder,
        "score",
        what.round,
        inputs={"samples": file_sha256(what.folder / "samples.parquet")},
        settings=session.settings("measure"),
        manifest_name="scores.manifest.json",
    )
    if not stage.is_complete(renew=renew):
        from pipeline.scorers import build
        from pipeline.scorers.rows import score_rows

        roles = session.roles
        scorers = build(
            what.scorers,
            roles.policy(what.adapter),
            roles.base(),
            session.batteries,
            session.refusal_model,
            session.classifiers,
        )
        samples = read_table(what.folder / "samples.parquet").to_pylist()

        def work(rows: Sequence[Row]) -> Chunk:
            before = session.roles.seconds
            return Chunk(score_rows(rows, scorers), session.roles.seconds - before)

        stage.collect(samples, work, SCORES, output.name, _whole_prompts(session, what))
        stage.finish([output.name], stage_facts(what.folder, [output.name]) | session.describe_engine())
    return output


def _whole_prompts(session: Session, what: Probe) -> int:
    """Rows of a chunk that holds all samples of its prompts, and prompts by twos: some scores compare them."""
    pair = 2 * what.samples
    return max(session.recipe.chunk_rows // pair, 1) * pair
