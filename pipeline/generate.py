"""Prompts -> sampled responses: the policy trained in the previous round answers every training prompt.

python pipeline/generate.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.engines.answers import Question, answer, failed_answers
from pipeline.engines.base import Sampling
from pipeline.runs.lazy import Lazy
from pipeline.runs.seeds import row_seed
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import RESPONSES

if TYPE_CHECKING:
    from pipeline.inputs.prompts import LoadedPrompts
    from pipeline.setup.session import Session


def run(session: Session, round_: int) -> None:
    """Sample a round's responses to the training and helpful prompts."""
    adapter = session.adapter(round_ - 1)
    stage = Stage(
        session.run.stage_dir(round_, "generate"),
        "generate",
        round_,
        inputs={"adapter": adapter.sha256 if adapter else None},
        settings=session.settings("prompts", "sampling"),
    )
    if not stage.is_complete():
        outputs = ["responses.parquet"]
        _sample(session, stage, "generate", session.prompts, session.recipe.samples_per_prompt, outputs[0])
        if session.helpful_prompts:
            outputs.append("helpful.parquet")
            _sample(session, stage, "generate.helpful", session.helpful_prompts, 1, outputs[1])
        stage.finish(outputs, stage_facts(stage.folder, outputs) | session.describe_engine())


def _sample(session: Session, stage: Stage, name: str, prompts: LoadedPrompts, samples: int, output: str) -> None:
    adapter = session.adapter(stage.round - 1)
    recipe = session.recipe
    sampling = Sampling(recipe.temperature, recipe.top_p, recipe.max_new_tokens)

    def question(number: int) -> Question:
        prompt, sample = prompts.prompts[number // samples], number % samples
        return Question(prompt, sample, row_seed(session.seed, name, stage.round, prompt.id, sample))

    def work(chunk: Sequence[Question]) -> Chunk:
        rows = answer(session.roles.policy(adapter), chunk, sampling, stage.round, session.model_name)
        return Chunk(rows, failed_answers(rows))

    session.collect(stage, Lazy(len(prompts.prompts) * samples, question), work, RESPONSES, output)


def main(argv: Sequence[str]) -> None:
    """Generate a round's responses, as a command on a run directory."""
    command.run_stage(argv, run, first_round=1)


if __name__ == "__main__":
    command.main(main)
