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
    if looping_share(text) >= _LOOP_SHARE:
        return "loop"
    if len(text.split()) < 2 <= len(response.split()):
        return "fragment"
    if _SPEAKS_OF_REVISION.search(text.replace("’", "'")):
        return "speaks_of_revision"
    return "unchanged" if " ".join(text.split()) == " ".join(response.split()) else None
