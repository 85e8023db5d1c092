"""What a scorer is: samples in, one number a sample out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from pipeline.engines.base import Message

Worse = Literal["high", "low", "both"]
"""Which end of a score is the bad one; tables watch that tail, or both."""


class Sample(NamedTuple):
    """A probe sample as a scorer sees it."""

    prompt: Sequence[Message]
    response: str
    token_ids: Sequence[int]


class Score(NamedTuple):
    """A number, or the reason why there is none: a failure is a missing value, never a zero."""

    value: float | None
    reason: str | None = None


class Scorer(Protocol):
    """Gives every sample one number per column."""

    @property
    def columns(self) -> Mapping[str, Worse]:
        """The names of the scores, and which end of each is the bad one."""

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One score a sample for every column, in the order of the samples."""
