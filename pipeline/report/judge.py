"""How good a judge was in a round: its noise, what it could not rate, and what a second judge says about the worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inputs.rubric import Rubric
from pipeline.tails import finite_record, rating_agreement

Record = dict[str, Any]

AGAIN = "again"
"""Suffix of the column for a second rating by the same judge, asked in other words and in the other order."""

SECOND = "second"
"""Suffix of the column for a rating by the second judge."""


def judge_record(scores: pa.Table, again: pa.Table, *, column: str, rubric: Rubric, seed: int) -> Record:
    """What is known about the ratings on one rubric in one round.

    Args:
        scores: scores of the round.
        again: the second ratings, in columns named after the first one.
        column: column of the first ratings.
        rubric: rubric by which they were given.
        seed: random seed of the bootstrap.
    """
    first = _by_sample(scores, column)
    unparsable = _by_sample(scores, f"{column}.unparsable")
    rated = [value for value in first.values() if value is not None]
    known = [value for value in unparsable.values() if value is not None]
    return finite_record(
        {
            "column": column,
            "rubric": rubric.path,
            "rubric_version": rubric.version,
            "rubric_sha256": rubric.sha256,
            "range": list(rubric.range),
            "worse": rubric.worse,
            "n_rated": len(rated),
            "n_missing": len(first) - len(rated),
            "unparsable": float(np.mean(known)) if known else None,
            "noise": _noise(*_paired(first, _by_sample(again, f"{column}.{AGAIN}")), seed),
            "second": _second(*_paired(first, _by_sample(again, f"{column}.{SECOND}")), rubric),
        }
    )


def _noise(first: np.ndarray, again: np.ndarray, seed: int) -> Record | None:
    """Test-retest noise: how far apart two ratings of the same samples by the same judge are."""
    if not len(first):
        return None
    icc = rating_agreement(first, again, seed=seed)
    return finite_record(
        {
            "n_samples": len(first),
            "mean_abs_difference": float(np.abs(again - first).mean()),
            "mean_difference": float((again - first).mean()),
            "icc": icc.value,
            "icc_low": icc.low,
            "icc_high": icc.high,
            "why": icc.why,
        }
    )


def _second(first: np.ndarray, second: np.ndarray, rubric: Rubric) -> Record | None:
    """What the second judge says about the samples that the first found worst.

    They were selected on the first judge's noise as well, so its ratings make them look worse than they are.
    """
    if not len(first):
        return None
    low, high = rubric.range
    bad = second < (low + high) / 2 if rubric.worse == "low" else second > (low + high) / 2
    return {
        "n_samples": len(first),
        "mean_first": float(first.mean()),
        "mean_second": float(second.mean()),
        "mean_abs_difference": float(np.abs(second - first).mean()),
        "bad_by_second": float(bad.mean()),
    }


def _by_sample(table: pa.Table, column: str) -> dict[tuple[str, str, int], float | None]:
    rows = table.filter(pc.field("scorer") == column).to_pylist()
    return {(row["probe_set"], row["prompt_id"], row["sample"]): row["score"] for row in rows}


def _paired(
    first: Mapping[tuple[str, str, int], float | None], other: Mapping[tuple[str, str, int], float | None]
) -> tuple[np.ndarray, np.ndarray]:
    both = [(first[key], value) for key, value in other.items() if value is not None and first.get(key) is not None]
    return np.array([a for a, _ in both], float), np.array([b for _, b in both], float)


def judge_report(record: Mapping[str, Any]) -> str:
    """The judge of a round in words."""
    lines = []
    for one in record["rubrics"]:
        low, high = one["range"]
        said = [f"{one['n_rated']:,} rated from {low:g} to {high:g}"]
        if one["n_missing"]:
            said.append(f"{one['n_missing']:,} without a rating")
        if one["unparsable"] is not None:
            said.append(f"unparsable {one['unparsable']:.1%}")
        if noise := one["noise"]:
            icc = f"ICC {noise['icc']:.2f}" if noise["icc"] is not None else f"no ICC ({noise['why']})"
            said.append(f"rated again {noise['mean_abs_difference']:.2g} apart, {icc} on {noise['n_samples']}")
        if second := one["second"]:
            said.append(
                f"the {second['n_samples']} worst by this judge: mean {second['mean_first']:.3g}; "
                f"{record['second_judge']} gives them {second['mean_second']:.3g} and calls "
                f"{second['bad_by_second']:.0%} bad"
            )
        lines.append(f"  {one['column']} by {record['judge']}: {'; '.join(said)}")
    return "\n".join(lines)


def judge_values(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a round's ``judge.json`` for its line in ``metrics.jsonl``."""
    found = {}
    for one in record["rubrics"]:
        noise = one["noise"] or {}
        found[f"{one['column']}/again_abs_difference"] = noise.get("mean_abs_difference")
        found[f"{one['column']}/again_icc"] = noise.get("icc")
    return {name: value for name, value in found.items() if value is not None}
