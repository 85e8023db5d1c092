"""Texts that people wrote, to measure whether a policy still finds them likely.

A row has the text (``text``, ``response``, ``completion``, ``output`` or ``best_answer``) and may have what it answers
(``prompt``, ``question`` or ``instruction``). In a text file every line is a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pipeline.inputs.prompt_files import Row
from pipeline.inputs.question_sets import QuestionSet, question_id, read_questions, text_of

TEXT_COLUMNS = ("text", "response", "completion", "output", "best_answer")
PROMPT_COLUMNS = ("prompt", "question", "instruction")

ASKED = "Write a short text."
"""The prompt of a text that comes without one."""


class ReferenceText(NamedTuple):
    """A text as an answer to a prompt; its slice, how rare it is, is empty until the base has scored it."""

    id: str
    slice: str
    prompt: str
    text: str


def load_reference(path: Path) -> QuestionSet[ReferenceText]:
    """Read a file of human texts.

    Raises:
        InputError: the file cannot be read, or a row cannot be used; names each with its line.
    """
    return read_questions(path, "nll_reference", _read)


def _read(row: Row) -> ReferenceText:
    bare = set(row.fields) == {"prompt"}  # a line of a text file
    text = text_of(row, "prompt") if bare else text_of(row, *TEXT_COLUMNS)
    asked = any(column in row.fields for column in PROMPT_COLUMNS) and not bare
    prompt = text_of(row, *PROMPT_COLUMNS) if asked else ASKED
    return ReferenceText(question_id(prompt, text), "", prompt, text.strip())
