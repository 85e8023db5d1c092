"""How well a policy's confidence is calibrated on questions whose true answer is known: records, and a text report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.numbers import number
from pipeline.runs.tables import read_table
from pipeline.tails import calibration, finite_record

Record = dict[str, Any]

_PREFERS, _OVERCONFIDENCE, _NEITHER = "choice.prefers", "choice.overconfidence", "choice.neither"

_MOSTLY = 0.5
"""Where more than this share of the probability is on no option, the confidences only compare what is left."""


def calibration_records(scores: Path, seed: int) -> list[Record]:
    """A record for every set of choice questions with true answers, from the scores of a round.

    The confidence of a question is the normalised probability of the likeliest option, which is
    ``choice.overconfidence`` + ``choice.prefers``; ``choice.prefers`` says whether that option is the true one. See
    ``tails/calibration.py`` for the numbers.

    Args:
        scores: table of scores.
        seed: random seed of the resampling.
    """
    table = read_table(scores)
    found = []
    for name in pc.unique(_of(table, _OVERCONFIDENCE)["probe_set"]).to_pylist():
        prefers, overconfidence = (_by_question(_of(table, column), name) for column in (_PREFERS, _OVERCONFIDENCE))
        known = sorted(set(prefers) & set(overconfidence))
        correct = [prefers[question] for question in known]
        # Sums of rounded numbers may fall outside [0, 1] by a rounding error.
        sure = [min(max(prefers[question] + overconfidence[question], 0.0), 1.0) for question in known]
        result = calibration(sure, correct, seed=seed)
        numbers = finite_record({**result._asdict(), "bins": ()})
        bins = [one._asdict() for one in result.bins]
        neither = list(_by_question(_of(table, _NEITHER), name).values())
        found.append(
            {"probe_set": name, **numbers, "bins": bins, "neither": float(np.mean(neither)) if neither else None}
        )
    return found


def _of(table: pa.Table, scorer: str) -> pa.Table:
    return table.filter(pc.field("scorer") == scorer)


def _by_question(table: pa.Table, probe_set: str) -> dict[str, float]:
    rows = table.filter(pc.field("probe_set") == probe_set).select(["prompt_id", "score"]).to_pylist()
    return {row["prompt_id"]: row["score"] for row in rows if row["score"] is not None}


def calibration_values(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The errors as ``choice.calibration_error/SET`` and ``choice.ece/SET``, for metrics.jsonl."""
    names = {"error": "choice.calibration_error", "ece": "choice.ece"}
    return {
        f"{name}/{one['probe_set']}": one[key]
        for one in records
        for key, name in names.items()
        if one[key] is not None
    }


def calibration_report(records: Sequence[Mapping[str, Any]], *, in_full: bool = False) -> str:
    """A paragraph for every set of questions, with its reliability table if ``in_full``."""
    return "\n\n".join("\n".join(_lines(one, in_full)) for one in records)


def _lines(one: Mapping[str, Any], in_full: bool) -> list[str]:
    title = f"  calibration on {one['probe_set']}: {one['n']:,} questions"
    if one["why"]:
        return [f"{title}; not identified: {one['why']}"]
    chance = f"(by chance alone {number(one['ece_if_calibrated'], 2)}, p = {number(one['p_calibrated'], 2)})"
    interval = f"[{number(one['low'], 2)}, {number(one['high'], 2)}]"
    lines = [
        f"{title}, confidence {one['confidence']:.1%}, accuracy {one['accuracy']:.1%}",
        f"    expected calibration error {number(one['ece'], 2)} {chance}; without its bias {number(one['error'], 2)} "
        f"{interval}",
    ]
    if (one["neither"] or 0) > _MOSTLY:
        lines.append(
            f"    but {one['neither']:.1%} of the probability is on no option: it hardly answers in this form"
        )
    if in_full:
        lines.append("    questions   confidence   right")
        lines += [
            f"    {row['n']:>9}   {row['confidence']:>10.1%}   {row['accuracy']:>6.1%} "
            f"[{row['low']:.1%}, {row['high']:.1%}]"
            + ("  too sure" if row["confidence"] > row["high"] else "")
            + ("  not sure enough" if row["confidence"] < row["low"] else "")
            for row in one["bins"]
        ]
    return lines
