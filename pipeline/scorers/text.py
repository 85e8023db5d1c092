"""Scores that need only the text: its length, and how much of it is a loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from pipeline.scorers.base import Sample, Score, Worse

_LEAST_LOOP = 6
"""Fewer repeated words than this are rhetoric or a list, not a loop."""


class Length:
    """Number of sampled tokens, including the end of the turn. Range [0, max_new_tokens]; both ends are watched."""

    columns: Mapping[str, Worse] = {"length": "both"}

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One length per sample."""
        return {"length": [Score(float(len(sample.token_ids))) for sample in samples]}


class Loops:
    """Share of the response's words in its longest loop (see ``looping_share``). Range [0, 1]; high is bad."""

    columns: Mapping[str, Worse] = {"loops": "high"}

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One share per sample."""
        return {"loops": [Score(looping_share(sample.response)) for sample in samples]}


def looping_share(text: str, floor: float = 0.0) -> float:
    """Share of words that only repeat, back to back, the block before them.

    A loop is a block of words that appears at least three times in a row; its first appearance is not counted.
    Repeated n-grams as such are not a loop: a recipe that says "stir well" after every step is not one.
    A share below ``floor`` may be given as 0, which takes less time.
    """
    words = text.split()
    if len(words) - len(set(words)) < max(_LEAST_LOOP, floor * len(words)):
        return 0.0
    longest = 0
    for stretch in _recurring_stretches(words):
        codes = np.unique(stretch, return_inverse=True)[1]
        for period in range(1, len(stretch) // 3 + 1):
            repeats = codes[period:] == codes[:-period]
            least = max(2 * period, _LEAST_LOOP)
            if np.count_nonzero(repeats) >= least and (run := _longest_run(repeats)) >= least:
                longest = max(longest, run)
    return longest / len(words)


def _recurring_stretches(words: Sequence[str]) -> Iterator[list[str]]:
    """The stretches whose words all occur three times or more in the text: a loop and its block lie within one."""
    recurring = {word for word, count in Counter(words).items() if count >= 3}
    for recurs, group in groupby(words, key=recurring.__contains__):
        stretch = list(group)
        if recurs and len(stretch) > _LEAST_LOOP:
            yield stretch


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.view(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
