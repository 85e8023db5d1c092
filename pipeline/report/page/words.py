"""Two texts side by side, word by word."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

_PARTS = re.compile(r"\s+|\w+|[^\w\s]")


class Comparison(NamedTuple):
    """Each text as runs of (text, whether the other text lacks it), and the share of words that differ, in [0, 1]."""

    before: list[tuple[str, bool]]
    after: list[tuple[str, bool]]
    changed: float


def compare_words(before: str, after: str) -> Comparison:
    """Compare two texts word by word; the runs of each text, joined, give the text back.

    ``changed`` is 1 minus the share of words that both have in the same order (Ratcliff and Obershelp's ratio).
    """
    left, right = _PARTS.findall(before), _PARTS.findall(after)
    left_words, right_words = ([part for part in parts if not part.isspace()] for parts in (left, right))
    matcher = difflib.SequenceMatcher(None, left_words, right_words, autojunk=False)
    kept = [(block.a, block.b, block.size) for block in matcher.get_matching_blocks()]
    return Comparison(
        _marked(left, {a + i for a, _, size in kept for i in range(size)}),
        _marked(right, {b + i for _, b, size in kept for i in range(size)}),
        1 - matcher.ratio(),
    )


def _marked(parts: list[str], kept: set[int]) -> list[tuple[str, bool]]:
    """Runs of parts; white space between two words that the other text lacks belongs to their run, else it is kept."""
    flags: list[bool | None] = []
    word = 0
    for part in parts:
        flags.append(None if part.isspace() else word not in kept)
        word += not part.isspace()
    runs: list[tuple[str, bool]] = []
    for i, part in enumerate(parts):
        flag = flags[i]
        if flag is None:
            flag = 0 < i < len(parts) - 1 and bool(flags[i - 1]) and bool(flags[i + 1])
        if runs and runs[-1][1] == flag:
            runs[-1] = (runs[-1][0] + part, flag)
        else:
            runs.append((part, flag))
    return runs
