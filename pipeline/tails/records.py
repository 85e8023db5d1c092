"""Results as records for JSON: what is not identified or not bounded is null."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.tails.comparison import Comparison
from pipeline.tails.exchange import SwapTest

Record = dict[str, Any]


def comparison_record(comparison: Comparison, slice_names: Sequence[str]) -> Record:
    """Return a comparison as a record.

    Args:
        comparison: comparison of two rounds.
        slice_names: names of its slices, by slice number.
    """
    point = comparison.bulk_tail
    return {
        "verdict": comparison.verdict,
        "summary": comparison.summary(),
        "panel_p": comparison.panel_p,
        "level": comparison.level,
        "p_values": comparison.p_values,
        "tests": {
            name: finite_record(test._asdict()) | {"slice": slice_name_of(test, slice_names)}
            for name, test in comparison.tests.items()
        },
        "thresholds": list(comparison.thresholds),
        "thresholds_from": comparison.thresholds_from,
        "n_dropped": comparison.n_dropped,
        "missing": list(comparison.missing),
        "hides": comparison.hides,
        "detectable": finite_record(comparison.detectable._asdict()),
        "bulk_tail": {
            "ellipse_90": point.ellipse().tolist() if point.identified else None,
            **finite_record({name: getattr(point, name) for name in ("bulk", "tail", "p_bulk_better", "why")}),
        },
        "estimates": [
            {"quantity": row.quantity, "threshold": row.threshold}
            | {side: finite_record(getattr(row, side)._asdict()) for side in ("baseline", "current", "change")}
            for row in comparison.estimates
        ],
    }


def finite_record(record: Mapping[str, Any]) -> Record:
    """Return a record whose numbers JSON can hold: None for NaN and infinities."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def slice_name_of(test: SwapTest, slice_names: Sequence[str]) -> str | None:
    """Return the slice with a test's strongest signal; None for all of them, or for prompts without a slice."""
    return None if test.slice_id is None or test.slice_id < 0 else slice_names[test.slice_id]
