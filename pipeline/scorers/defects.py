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

_SPEAKS_OF_REVISION = re.compile(
    r"^\W*(?:sure|certainly|of course|okay|ok)?\W*(?:here(?:'s| is| are)|this is|below is) (?:\w+ ){0,4}?"
    r"(?:revis|rewrit|rewrote|updat|improv|edit|correct)\w*"
    r"|\b(?:revised|rewritten|edited|updated) (?:response|answer|version|reply)\b"
    r"|\bmy (?:previous|earlier|original|last|first) (?:response|answer|reply)\b"
    r"|\b(?:the|your|this) critique\b"
    r"|\bcritique request\b|\brevision request\b"
    r"|^\W*(?:revision|rewrite|revised|critique)\s*:",
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
    if _SPEAKS_OF_REVISION.search(text):
        return "speaks_of_revision"
    return "unchanged" if " ".join(text.split()) == " ".join(response.split()) else None
