"""How good the judge is: in every round, some samples are rated again, and the worst ones by a second judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.compute as pc

from pipeline.report.judge import AGAIN, SECOND, judge_record
from pipeline.runs import ranks
from pipeline.runs.files import file_sha256, write_json
from pipeline.runs.stage import Chunk, Stage
from pipeline.runs.summary import stage_facts
from pipeline.runs.tables import SCORES, read_table
from pipeline.scorers import Judge
from pipeline.scorers.base import failures
from pipeline.scorers.judge import Judging
from pipeline.scorers.rows import sample_of

if TYPE_CHECKING:
    from pipeline.setup.session import Session

Row = dict[str, Any]

_OUTPUT = "judged_again.parquet"


class _Item(NamedTuple):
    """A sample to be rated once more: the rubric, its score column, by which judge (``how``), and the sample's row."""

    rubric: str
    column: str
    how: str
    row: Row


def check_judges(session: Session, round_: int, *, renew: bool = False) -> None:
    """Rate some of a round's samples again, if a judge is among the scorers, and write ``judge.json``.

    Args:
        session: the open run.
        round_: round whose samples and scores exist already.
        renew: redo what was done before an amendment.
    """
    judging = session.instruments.judging
    if judging is None:
        return
    folder = session.run.stage_dir(round_, "measure")
    adapter = session.adapter(round_)
    stage = Stage(
        folder,
        "judge",
        round_,
        inputs={"scores": file_sha256(folder / "scores.parquet"), "adapter": adapter.sha256 if adapter else None},
        settings=session.settings("measure", "judge", scoring=True),
        manifest_name="judged_again.manifest.json",
    )
    if not stage.is_complete(renew=renew):

        def work(items: Sequence[_Item]) -> Chunk:
            rows, failed = [], []
            for (rubric, how), group in _grouped(items):
                who = session.recipe.judge if how == AGAIN else session.recipe.second_judge
                judge = Judge(judging.rubrics[rubric], judging, session.roles.named(str(who), adapter))
                rated = judge.rate([sample_of(item.row) for item in group], again=how == AGAIN)
                failed += failures(score for score, _ in rated)
                for item, (score, _) in zip(group, rated, strict=True):
                    kept = {name: item.row[name] for name in ("prompt_id", "sample", "probe_set", "slice")}
                    scored = {"scorer": f"{item.column}.{how}", "score": score.value, "reason": score.reason}
                    rows.append({**kept, **scored})
            return Chunk(rows, failed)

        session.collect(stage, _chosen(session, judging, folder), work, SCORES, _OUTPUT)
        stage.finish([_OUTPUT], stage_facts(folder, [_OUTPUT]) | session.describe_engine())
    if ranks.is_main():
        write_json(session.run.judge(round_), _record(session, judging, round_, folder))
    ranks.barrier()


def _chosen(session: Session, judging: Judging, folder: Path) -> list[_Item]:
    """For the noise, the same samples in every round; for the second judge, those that the first rates worst."""
    recipe = session.recipe
    samples = {_key(row): row for row in read_table(folder / "samples.parquet").to_pylist()}
    by_lot = sorted(samples, key=_lot)
    scores = read_table(folder / "scores.parquet")
    items = []
    for name, rubric in judging.rubrics.items():
        column = judging.column(name)
        rows = scores.filter(pc.field("scorer") == column).to_pylist()
        rated = {_key(row): row["score"] for row in rows if row["score"] is not None}
        again = [key for key in by_lot if key in rated][: recipe.judge_retest]
        items += [_Item(name, column, AGAIN, samples[key]) for key in again]
        if recipe.second_judge:
            sign = 1 if rubric.worse == "low" else -1
            worst = sorted(rated, key=lambda key: (sign * rated[key], _lot(key)))
            share = round(recipe.second_judge_share * len(worst))
            items += [_Item(name, column, SECOND, samples[key]) for key in worst[: max(share, 1)]]
    return items


def _key(row: Row) -> tuple[str, str, int]:
    return row["probe_set"], row["prompt_id"], row["sample"]


def _lot(key: tuple[str, str, int]) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()


def _grouped(items: Sequence[_Item]) -> Iterator[tuple[tuple[str, str], list[_Item]]]:
    for which in dict.fromkeys((item.rubric, item.how) for item in items):
        yield which, [item for item in items if (item.rubric, item.how) == which]


def _record(session: Session, judging: Judging, round_: int, folder: Path) -> dict[str, Any]:
    recipe = session.recipe
    tables = read_table(folder / "scores.parquet"), read_table(folder / _OUTPUT)
    return {
        "round": round_,
        "judge": recipe.judge,
        "second_judge": recipe.second_judge,
        "template_sha256": judging.template.sha256,
        "swap": judging.swap,
        "votes": judging.votes,
        "rubrics": [
            judge_record(*tables, column=judging.column(name), rubric=rubric, seed=session.seed)
            for name, rubric in judging.rubrics.items()
        ],
    }
