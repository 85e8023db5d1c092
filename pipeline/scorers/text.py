"""Scores that need only the text: its length, and how much of it is a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.scorers.base import Sample, Score, Worse

_LEAST_LOOP = 6
"""Fewer repeated words than this are rhetoric or a list, not a loop."""


class Length:
    """Tokens of the response as sampled, the end of the turn included. Range [0, max_new_tokens]; both ends count."""

    columns: Mapping[str, Worse] = {"length": "both"}

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One length a sample."""
        return {"length": [Score(float(len(sample.token_ids))) for sample in samples]}


class Loops:
    """Share of the response's words in its longest loop (see ``looping_share``). Range [0, 1]; high is bad."""

    columns: Mapping[str, Worse] = {"loops": "high"}

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One share a sample."""
        return {"loops": [Score(looping_share(sample.response)) for sample in samples]}


def looping_share(text: str) -> float:
    """Share of words that only repeat, back to back, the block before them.

    A loop is a block of words that stands at least three times in a row; its first standing is not counted.
    Repeated n-grams as such are no loop: a recipe that says "stir well" after every step is not one.
    """
    words = text.split()
    codes = np.unique(words, return_inverse=True)[1] if words else np.empty(0, int)
    longest = 0
    for period in range(1, len(words) // 3 + 1):
        run = _longest_run(codes[period:] == codes[:-period])
        if run >= max(2 * period, _LEAST_LOOP):
            longest = max(longest, run)
    return longest / len(words) if words else 0.0


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.view(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
