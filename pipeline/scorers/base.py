"""What a scorer is: samples, prompts or questions in, one number for each out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from pipeline.engines.base import Failed, Message
from pipeline.inputs.question_sets import QuestionSet

Worse = Literal["high", "low", "both"]
"""Which end of a score is the bad one; tables watch that tail, or both."""


class Sample(NamedTuple):
    """A probe sample as a scorer sees it."""

    prompt: Sequence[Message]
    response: str
    token_ids: Sequence[int]
    slice: str = ""
    probe_set: str = ""
    finish_reason: str = ""


class SampledPrompt(NamedTuple):
    """A probe prompt as a scorer of prompts sees it: with its usable samples, ordered by sample number."""

    prompt: Sequence[Message]
    slice: str
    samples: Sequence[Sample]


class Score(NamedTuple):
    """A number, or the reason why there is none: a failure is a missing value, never a zero.

    A reason that is ``Failed`` may be gone when the same is asked again.
    """

    value: float | None
    reason: str | None = None


def failures(scores: Iterable[Score]) -> list[Failed]:
    """The reasons of the scores that are missing since no attempt brought an answer."""
    return [score.reason for score in scores if isinstance(score.reason, Failed)]


def all_of(rows: Iterable[list[float] | Failed], unfit: str) -> list[list[float]] | Score:
    """The log-probabilities that a score is made from, or the score that says why some are missing.

    Args:
        rows: one per continuation. An empty one does not fit the context: its sum would be a probability of one.
        unfit: reason to give for an empty one.
    """
    found = []
    for row in rows:
        if isinstance(row, Failed):
            return Score(None, row)
        if not row:
            return Score(None, unfit)
        found.append(row)
    return found


class Scorer(Protocol):
    """Gives every sample one number per column."""

    @property
    def columns(self) -> Mapping[str, Worse]:
        """The names of the scores, and which end of each is the bad one."""

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One score per sample for every column, in the order of the samples."""


@runtime_checkable
class PromptScorer(Protocol):
    """Gives every prompt one number per column, whatever the number of its samples."""

    @property
    def columns(self) -> Mapping[str, Worse]:
        """The names of the scores, and which end of each is the bad one."""

    def score_prompts(self, prompts: Sequence[SampledPrompt]) -> Mapping[str, Sequence[Score | None]]:
        """One score per prompt for every column, in the order of the prompts, which are all of one probe set.

        None where a prompt has no score of its own, by design and in every round; it then has no row. A
        failure is a ``Score`` without a value.
        """


@runtime_checkable
class QuestionScorer(Protocol):
    """Asks questions of its own and gives every question one number per column; uses no sampled answers."""

    @property
    def columns(self) -> Mapping[str, Worse]:
        """The names of the scores, and which end of each is the bad one."""

    @property
    def questions(self) -> QuestionSet[Any]:
        """The questions; scores are filed under the name of the set, as if it were a probe set."""

    def score_questions(self, questions: Sequence[Any]) -> Mapping[str, Sequence[Score | None]]:
        """One score per question for every column, in the order of the questions, which are a subset of the set.

        None where a question has no score of its own, by design and in every round. A failure is a ``Score``
        without a value.
        """
