"""Which rows a round trains on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import RunError
from pipeline.runs.rundir import RunDir
from pipeline.runs.seeds import stage_seed
from pipeline.runs.summary import count_values
from pipeline.runs.tables import read_table

if TYPE_CHECKING:
    from pipeline.inputs.recipe_fields import Recipe

Row = dict[str, Any]

log = logging.getLogger("pipeline")


def training_rows(run: RunDir, round_: int, recipe: Recipe, seed: int) -> list[Row]:
    """The rows of ``train.parquet``: prompt and final revision of every exchange, and helpful examples mixed in.

    ``data_policy``: ``replace`` takes this round's rows; ``accumulate`` takes those of all rounds so far
    (Gerstgrasser et al. 2024: bounds the error that replacing lets grow); ``anchor`` takes round 1's and this round's.

    Raises:
        RunError: no row is left to train on.
    """
    own = _own_rows(run, round_, recipe, seed)
    if not any(row["source"] == "revision" for row in own):
        reasons = count_values(run.stage_dir(round_, "refine") / "refinements.parquet", "drop_reason")
        counted = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise RunError(
            f"{run.stage_dir(round_, 'refine')}: no revision is fit to be trained on (dropped: {counted}). "
            "Nothing is lost; look at refinements.parquet. A longer critique_max_new_tokens fixes `cut_off`; "
            "`keep_dropped: [cut_off, loop, ...]` trains on rows dropped for those reasons anyway."
        )
    earlier = {"replace": [], "accumulate": list(range(1, round_)), "anchor": [1] if round_ > 1 else []}
    rows = [row for r in earlier[recipe.data_policy] for row in _earlier_rows(run, r)]
    return rows + own


def _own_rows(run: RunDir, round_: int, recipe: Recipe, seed: int) -> list[Row]:
    columns = ["prompt_id", "sample", "prompt", "final"]
    refined = read_table(run.stage_dir(round_, "refine") / "refinements.parquet", columns).to_pylist()
    rows = [_row(row, row["final"], round_, "revision") for row in refined if row["final"] is not None]
    if not recipe.helpful_fraction:
        return rows
    columns = ["prompt_id", "sample", "prompt", "response", "drop_reason", "finish_reason"]
    answered = read_table(run.stage_dir(round_, "generate") / "helpful.parquet", columns).to_pylist()
    unfit = [_unfit(row) for row in answered]
    helpful = [row for row, reason in zip(answered, unfit, strict=True) if reason is None]
    wanted = round(len(rows) * recipe.helpful_fraction / (1 - recipe.helpful_fraction))
    if wanted > len(helpful):
        reasons = Counter(reason for reason in unfit if reason is not None)
        counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        log.warning(
            "helpful_fraction: needs %d helpful answers, but of %d only %d can be trained on%s; all are used. "
            "Give more `helpful_prompts`%s.",
            wanted,
            len(answered),
            len(helpful),
            counted and f" ({counted})",
            ", or a longer `max_new_tokens` against `cut_off` (`keep_dropped` is for revisions alone)"
            if reasons["cut_off"]
            else "",
        )
    chosen = np.random.default_rng(stage_seed(seed, "helpful", round_)).permutation(len(helpful))[:wanted]
    return rows + [_row(helpful[i], helpful[i]["response"], round_, "helpful") for i in sorted(chosen)]


def _unfit(answer: Row) -> str | None:
    """Why an answer cannot be a helpful example; None if it can."""
    if answer["drop_reason"] is not None or answer["finish_reason"] == "stop":
        return answer["drop_reason"]
    return "cut_off" if answer["finish_reason"] == "length" else str(answer["finish_reason"])


def _row(source: Row, completion: str, round_: int, kind: str) -> Row:
    return {
        "prompt": source["prompt"],
        "completion": [{"role": "assistant", "content": completion}],
        "prompt_id": source["prompt_id"],
        "sample": source["sample"],
        "round": round_,
        "source": kind,
    }


def _earlier_rows(run: RunDir, round_: int) -> list[Row]:
    rows = read_table(run.stage_dir(round_, "distill") / "train.parquet").to_pylist()
    return [row for row in rows if row["round"] == round_]


def count_sources(rows: Sequence[Row]) -> dict[str, int]:
    """Rows by source, for the manifest."""
    return dict(sorted(Counter(row["source"] for row in rows).items()))
