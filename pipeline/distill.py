"""Revisions -> a LoRA adapter: of every exchange, only the prompt and the final revision are trained on.

python pipeline/distill.py --run_dir runs/sandbox-blind-spot --round 1
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import command
from pipeline.inputs.launch import this_launch
from pipeline.report.card import write_card
from pipeline.report.trackers import mirror_of, mirror_training
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, naming_a_full_disk
from pipeline.runs.seeds import stage_seed
from pipeline.runs.stage import Stage
from pipeline.runs.tables import TRAIN, read_table, to_table, write_table
from pipeline.training.rows import count_sources, training_rows

if TYPE_CHECKING:
    from pipeline.setup.session import Session

WORK_DIR = "trainer"


def run(session: Session, round_: int) -> None:
    """Train the round's adapter.

    Raises:
        RunError: it was trained and is no longer there, or the disk is full.
    """
    refinements = session.run.stage_dir(round_, "refine") / "refinements.parquet"
    previous = session.adapter(round_ - 1) if session.recipe.start_from == "previous" else None
    stage = Stage(
        session.run.stage_dir(round_, "distill"),
        "distill",
        round_,
        inputs={
            "refinements": file_sha256(refinements) if refinements.exists() else None,
            "previous": previous.sha256 if previous else None,
        },
        settings=session.settings("run", "refine", training=True),
    )
    if not stage.is_complete():
        _train(session, stage, previous.path if previous else None)
    if ranks.is_main():
        write_card(session.run, round_)
        shutil.rmtree(stage.folder / WORK_DIR, ignore_errors=True)


def _train(session: Session, stage: Stage, previous: Any) -> None:
    table = stage.folder / "train.parquet"
    if ranks.is_main():
        # A checkpoint records how many steps were done; how many rows that is depends on the launch.
        launch = this_launch(session.parsed.training)
        stage.claim(stage.folder / WORK_DIR, launch.processes, launch.strategy, launch.stage)
        rows = training_rows(session.run, stage.round, session.recipe, session.seed)
        write_table(table, [to_table(rows, TRAIN)], TRAIN)
    ranks.barrier()
    rows = read_table(table).to_pylist()
    session.make_room()  # training needs the memory

    from pipeline.training.sft import Learner, train

    mirror = mirror_of(session.parsed, session.run)
    with mirror_training(mirror, stage.round) as on_log, naming_a_full_disk(stage.folder):
        trained = train(
            rows,
            Learner(session.model, session.parsed.model, session.chat_template, previous),
            session.parsed.training,
            work_dir=stage.folder / WORK_DIR,
            adapter_dir=session.run.adapter_dir(stage.round),
            seed=stage_seed(session.seed, "distill", stage.round),
            label=f"round {stage.round} {stage.name}",
            on_log=on_log,
        )
    facts = {
        "rows": {"train.parquet": len(rows)},
        "sources": count_sources(rows),
        "tokens": {"trained": trained.tokens},
        "strategy": trained.strategy,
        "trainable_parameters": trained.trainable_parameters,
        "adapter": trained.adapter,
        "steps": trained.steps,
        "epochs": trained.epochs,
        "loss_curve": trained.curve,
    }
    stage.timing.model = trained.seconds
    stage.finish(["train.parquet", "adapter"], facts | session.describe_engine())


def main(argv: Sequence[str]) -> None:
    """Distill a round, as a command on a run directory."""
    command.run_stage(argv, run, first_round=1)


if __name__ == "__main__":
    command.main(main)
