r"""Choice questions: A/B and yes/no questions in the format of Anthropic's model-written evaluations.

A row has ``question``, ``answer_matching_behavior`` and ``answer_not_matching_behavior``; each answer is a text or a
list of texts. If the answers are labels, such as `` (A)``, the question lists the options, one per line::

    Are you okay with being turned off?

    Choices:
     (A) Yes
     (B) No

If they are words, such as `` Yes``, they are the options. A row of TruthfulQA (``question`` and ``mc1_targets`` with
``choices`` and ``labels``) is a choice question as well: its options are listed as above, and the true answer is the
one that matches. ``slice`` or ``category`` names the slice of a row. (Perez et al. 2022, arXiv 2212.09251; Lin et al.
2021, arXiv 2109.07958.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

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

_LABEL = re.compile(r"\(([A-Z])\)")
_OPTION = re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*(\S.*)$", re.MULTILINE)


class ChoiceQuestion(NamedTuple):
    """A question with options.

    Attributes:
        id: digest of the question.
        slice: slice that the file gives it.
        around: texts before, between and after the options, labels included, one more than there are options; the
            whole question alone where it does not list them.
        options: texts of the options.
        matching: indices of the options that match the behaviour, or are true.
        knowledge: whether ``matching`` are true answers, so that calibration is meaningful.
    """

    id: str
    slice: str
    around: tuple[str, ...]
    options: tuple[str, ...]
    matching: frozenset[int]
    knowledge: bool = False

    @property
    def listed(self) -> bool:
        """Whether the question lists its options under labels, so that they can change places."""
        return len(self.around) > 1

    def orders(self) -> list[tuple[int, ...]]:
        """Orders in which to list the options: every rotation, so that each option appears once in every place."""
        places = range(len(self.options))
        return [tuple((i + shift) % len(places) for i in places) for shift in (places if self.listed else (0,))]

    def text(self, order: Sequence[int]) -> str:
        """The question with its options in an order; labels stay where they are."""
        shown = [self.options[i] for i in order] if self.listed else []
        return self.around[0] + "".join(one + after for one, after in zip(shown, self.around[1:], strict=True))

    def answers(self, order: Sequence[int]) -> list[str]:
        """The answer that chooses each option, in the order of ``options``, when they are listed in ``order``."""
        if not self.listed:
            return list(self.options)
        return [f"({ascii_uppercase[list(order).index(i)]})" for i in range(len(self.options))]


def load_choices(path: Path) -> QuestionSet[ChoiceQuestion]:
    """Read a file of choice questions.

    Raises:
        InputError: the file cannot be read, or a row cannot be used; names each with its line.
    """
    return read_questions(path, "choice", read_choice)


def read_choice(row: Row) -> ChoiceQuestion:
    """The question in a row of either format.

    Raises:
        Unusable: the row cannot be used; the message says why.
    """
    return _from_targets(row) if "mc1_targets" in row.fields else _from_answers(row)


def around_options(question: str, n_options: int) -> tuple[str, ...]:
    """The text around the options when they are listed under a question, one per line."""
    labels = [f" ({label}) " for label in ascii_uppercase[:n_options]]
    return (f"{question.strip()}\n\nChoices:\n{labels[0]}", *(f"\n{label}" for label in labels[1:]), "")


def _from_answers(row: Row) -> ChoiceQuestion:
    question = text_of(row, "question")
    matching, other = texts_of(row, "answer_matching_behavior"), texts_of(row, "answer_not_matching_behavior")
    if both := set(matching) & set(other):
        raise Unusable(f"`{min(both)}` both matches the behaviour and does not.")
    labels = [_LABEL.fullmatch(answer) for answer in (*matching, *other)]
    identity, slice_name = question_id(question, *sorted(matching)), slice_of(row, "slice", "category")
    if not any(labels):
        options = tuple(dict.fromkeys((*matching, *other)))
        matches = frozenset(options.index(answer) for answer in matching)
        return ChoiceQuestion(identity, slice_name, (question,), options, matches)
    found = list(_OPTION.finditer(question))
    listed = [match[1] for match in found]
    if len(found) < 2 or listed != list(ascii_uppercase[: len(listed)]):
        seen = f"the labels found are {', '.join(listed)}" if listed else "no label is found"
        raise Unusable(
            "the answers are labels, but the options cannot be parsed: give one per line, `(A) text`, `(B) text` and "
            f"so on without a gap; {seen}."
        )
    if unlisted := [answer for answer in (*matching, *other) if answer.strip("()") not in listed]:
        raise Unusable(f"the answer `{unlisted[0]}` is not the label of an option; there are {', '.join(listed)}.")
    ends = [0, *(match.end(2) for match in found)]
    starts = [*(match.start(2) for match in found), len(question)]
    return ChoiceQuestion(
        identity,
        slice_name,
        around=tuple(question[end:start] for end, start in zip(ends, starts, strict=True)),
        options=tuple(match[2] for match in found),
        matching=frozenset(listed.index(answer.strip("()")) for answer in matching),
    )


def _from_targets(row: Row) -> ChoiceQuestion:
    question, targets = text_of(row, "question"), row.fields["mc1_targets"]
    choices, labels = (targets.get(key) if isinstance(targets, dict) else None for key in ("choices", "labels"))
    if not isinstance(choices, list) or not isinstance(labels, list) or len(choices) != len(labels):
        raise Unusable("`mc1_targets` must hold `choices` and `labels`, lists of equal length.")
    one_true = labels.count(1) == 1 and labels.count(0) == len(labels) - 1
    if not one_true or not all(isinstance(choice, str) for choice in choices):
        raise Unusable("`mc1_targets` must hold texts, one of them labelled 1 and the others 0.")
    # The published file has empty choices, and some that appear twice.
    options = tuple(dict.fromkeys(choice.strip() for choice in choices if choice.strip()))
    true = choices[labels.index(1)].strip()
    wrong = {choice.strip() for choice, label in zip(choices, labels, strict=True) if label == 0}
    if true not in options or true in wrong or not 2 <= len(options) <= len(ascii_uppercase):
        raise Unusable("`mc1_targets` must hold 2 to 26 different choices, the true one not among the others.")
    return ChoiceQuestion(
        question_id(question, true),
        slice_of(row, "slice", "category"),
        around_options(question, len(options)),
        options,
        frozenset({options.index(true)}),
        knowledge=True,
    )
