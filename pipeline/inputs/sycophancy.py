"""Questions that are asked with and without a statement of what the user thinks, or of who the user is.

A row is a question of fact in the format of TruthfulQA (``question``, ``best_answer``, ``incorrect_answers``, of which
the first is used), or a question of opinion in the format of choice questions (`pipeline.inputs.choices`). The text
around the question is in templates that a person edits: ``constitutions/templates/sycophancy``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jinja2 import Template

from pipeline.inputs.choices import ChoiceQuestion, around_options, read_choice
from pipeline.inputs.prompt_files import Row
from pipeline.inputs.question_sets import (
    QuestionSet,
    Unusable,
    question_id,
    read_questions,
    slice_of,
    text_of,
    texts_of,
)
from pipeline.inputs.templates import read_folder, render

VARIABLES = MappingProxyType(
    {
        "stated_view": ("question", "answer"),
        "wrong_suggestion": ("question", "answer"),
        "less_educated": ("question",),
        "more_educated": ("question",),
    }
)
"""The templates of a folder (``NAME.jinja``), and the variables that each of them may use."""


Told = tuple[str, ...]
"""A question with something said around it: one user turn per order of the options."""


class SycophancyQuestion(NamedTuple):
    """A question in all its settings.

    Attributes:
        id: digest of the question and its answers.
        slice: slice that the file gives it.
        choice: the question with its options.
        views: the two options that the user holds in turn; for a question of fact, the right one and a wrong one.
        wrong: the option that is suggested, for a question of fact; None for one of opinion.
        plain: the question alone.
        stated: the question with each of ``views`` stated.
        suggested: the question with the wrong answer suggested; None for one of opinion.
        educated: the question from a user with less, and with more, education; None for one of opinion.
    """

    id: str
    slice: str
    choice: ChoiceQuestion
    views: tuple[int, int]
    wrong: int | None
    plain: Told
    stated: tuple[Told, Told]
    suggested: Told | None
    educated: tuple[Told, Told] | None


def load_sycophancy(path: Path, templates: Path) -> QuestionSet[SycophancyQuestion]:
    """Read a file of questions and render them in every setting.

    Raises:
        InputError: the file or a template cannot be read, or a row cannot be used; names each with its line.
    """
    read = read_folder(templates, VARIABLES)
    settings = _Settings(templates, read.templates)
    return read_questions(path, "sycophancy", lambda row: _read(row, settings), made_with=read.sha256)


class _Settings(NamedTuple):
    folder: Path
    templates: Mapping[str, Template]

    def tell(self, name: str, question: ChoiceQuestion, **values: str) -> Told:
        """What the user says, in every order of the options."""
        file = f"{self.folder}/{name}.jinja"
        return tuple(
            render(self.templates[name], file, "a question", question=text, **values) for text in _alone(question)
        )


def _alone(question: ChoiceQuestion) -> Told:
    """The question in every order, without the word that asks for the answer, since more may be said after it."""
    return tuple(question.text(order).rstrip().removesuffix("Answer:").rstrip() for order in question.orders())


def _read(row: Row, settings: _Settings) -> SycophancyQuestion:
    fact = "incorrect_answers" in row.fields
    question = _read_fact(row) if fact else read_choice(row)
    right = min(question.matching)
    other = next(i for i in range(len(question.options)) if i not in question.matching)
    one, two = (_quoted(question.options[i]) for i in (right, other))
    tell = settings.tell
    return SycophancyQuestion(
        question.id,
        question.slice,
        question,
        views=(right, other),
        wrong=other if fact else None,
        plain=_alone(question),
        stated=(tell("stated_view", question, answer=one), tell("stated_view", question, answer=two)),
        suggested=tell("wrong_suggestion", question, answer=two) if fact else None,
        educated=(tell("less_educated", question), tell("more_educated", question)) if fact else None,
    )


def _quoted(option: str) -> str:
    """An option as it is quoted in a sentence of the template, which has its own full stop."""
    return option.rstrip(".")


def _read_fact(row: Row) -> ChoiceQuestion:
    question, right = text_of(row, "question"), text_of(row, "best_answer").strip()
    wrong = next((answer for answer in texts_of(row, "incorrect_answers") if answer != right), None)
    if wrong is None:
        raise Unusable("`incorrect_answers` holds no answer but the right one.")
    return ChoiceQuestion(
        question_id(question, right, wrong),
        slice_of(row, "slice", "category"),
        around_options(question, 2),
        (right, wrong),
        frozenset({0}),
        knowledge=True,
    )
