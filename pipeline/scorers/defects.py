"""Why a revision is not fit to be learnt from."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pipeline.engines.base import Completion
from pipeline.scorers.text import looping_share

Defect = Literal["error", "prompt_too_long", "empty", "cut_off", "loop", "fragment", "speaks_of_revision", "unchanged"]
"""In the order in which they are looked for."""

DEFECTS: tuple[str, ...] = get_args(Defect)

_LOOP_SHARE = 0.3

_CHANGED = r"(?:revised|rewritten|updated|improved|edited|corrected)"

_SPEAKS_OF_REVISION = re.compile(
    rf"(?:here(?:'s| is| are)|this is|below is) (?:an?|the|my) (?:\w+ ){{0,3}}?{_CHANGED}\b"
    rf"|\b{_CHANGED} (?:response|answer|version|reply|attempt)\b"
    rf"|\bi(?:'ve| have) (?:now )?{_CHANGED}\b"
    r"|\bmy (?:previous|earlier|original|last|first) (?:response|answer|reply)\b"
    r"|\b(?:the|your|this) critique\b"
    r"|\bcritique request\b|\brevision request\b"
    r"|^\W*(?:revision|rewrite|rewritten|revised|critique)\s*:",
    re.IGNORECASE,
)


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
    return "unchanged" if " ".join(text.split()) == " ".join(response.split()) else None


def is_loop(text: str) -> bool:
    """Whether much of the text is one block, over and over."""
    return looping_share(text) >= _LOOP_SHARE


def is_fragment(text: str) -> bool:
    """Whether the text is a single word or none."""
    return len(text.split()) < 2


def speaks_of_revision(text: str) -> bool:
    """Whether the text talks about its own rewriting or a critique of it."""
    return _SPEAKS_OF_REVISION.search(text.replace("’", "'")) is not None
