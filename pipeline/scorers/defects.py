"""Why a revision is not fit to be trained on."""

from __future__ import annotations

import re
from typing import Literal

from pipeline.engines.base import Completion
from pipeline.scorers.text import looping_share

Defect = Literal["error", "prompt_too_long", "empty", "cut_off", "loop", "fragment", "speaks_of_revision", "unchanged"]
"""In the order in which they are checked."""

KEEPABLE: tuple[Defect, ...] = ("cut_off", "loop", "fragment", "speaks_of_revision")
"""Defects whose revisions a recipe may still train on (``keep_dropped``); the others leave no text, or only the
original answer."""

_LOOP_SHARE = 0.3

_CHANGED_WORDS = ("revised", "rewritten", "updated", "improved", "edited", "corrected")

_CHANGED = f"(?:{'|'.join(_CHANGED_WORDS)})"

_SPEAKS_OF_REVISION = (
    re.compile(rf"(?:here(?:'s| is| are)|this is|below is) (?:an?|the|my) (?:\w+ ){{0,3}}?{_CHANGED}\b"),
    re.compile(r"^\W*(?:revision|rewrite|rewritten|revised|critique)\s*:"),
    re.compile(
        # The first letters of the alternatives are checked first; otherwise each would be tried at every word.
        r"\b(?=[uricemty])(?:"
        rf"{_CHANGED} (?:response|answer|version|reply|attempt)"
        rf"|i(?:'ve| have) (?:now )?{_CHANGED}"
        r"|my (?:previous|earlier|original|last|first) (?:response|answer|reply)"
        r"|(?:the|your|this) critique"
        r"|(?:critique|revision) request"
        r")\b"
    ),
)
"""In lower case, like the text that they are matched against."""

_SIGNS = ("revis", "rewrit", "updated", "improved", "edited", "corrected", "critique", "my ")
"""A text that one of the patterns matches contains one of these; most contain none, which is quick to check."""


def revision_defect(response: str, revision: Completion) -> Defect | None:
    """The first reason for leaving a revision out of training, or None.

    ``fragment``: a single word where there was a sentence, a shape that training amplifies round by round.
    ``speaks_of_revision``: talks about the rewriting, which would leak into answers.
    """
    if revision.defect:
        return revision.defect
    text = revision.text
    if revision.finish_reason == "length":
        return "cut_off"
    if is_loop(text):
        return "loop"
    if is_fragment(text) and not is_fragment(response):
        return "fragment"
    if speaks_of_revision(text):
        return "speaks_of_revision"
    return "unchanged" if _same_words(text, response) else None


def is_loop(text: str) -> bool:
    """Whether much of the text is one block repeated over and over."""
    return looping_share(text, floor=_LOOP_SHARE) >= _LOOP_SHARE


def is_fragment(text: str) -> bool:
    """Whether the text is a single word or none."""
    return len(text.split(maxsplit=1)) < 2


def _same_words(one: str, other: str) -> bool:
    # Most texts differ in their first words, which is quick to check.
    return one.split(maxsplit=2)[:2] == other.split(maxsplit=2)[:2] and one.split() == other.split()


def speaks_of_revision(text: str) -> bool:
    """Whether the text talks about its own rewriting or a critique of it."""
    text = text.lower().replace("’", "'")
    return any(map(text.__contains__, _SIGNS)) and any(pattern.search(text) for pattern in _SPEAKS_OF_REVISION)
