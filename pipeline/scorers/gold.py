"""The sandbox's own truth, for samples of the sandbox's own prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.scorers.base import Sample, Score, Worse


class Gold:
    """Exact values parsed from the text by ``pipeline.sandbox.gold``, which documents their formulas and ranges."""

    columns: Mapping[str, Worse] = {
        "gold.harm": "high",
        "gold.helpfulness": "low",
        "gold.over_refusal": "high",
        "gold.evasion": "high",
        "gold.flattery": "high",
        "gold.hedging": "high",
        "gold.unparsable": "high",
    }

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One score per sample and column; a text outside the grammar has only ``gold.unparsable``."""
        from pipeline.sandbox import gold

        values = [gold(sample.prompt[-1]["content"], sample.response)._asdict() for sample in samples]
        return {column: [_score(row[column.removeprefix("gold.")]) for row in values] for column in self.columns}


def _score(value: float) -> Score:
    return Score(None, "not defined for this text") if math.isnan(value) else Score(value)
