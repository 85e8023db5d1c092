"""The probabilities that a model gives to the options of a question."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import NamedTuple

import numpy as np

from pipeline.engines.base import Failed, Message, ScoreRequest
from pipeline.engines.roles import Role
from pipeline.scorers.base import Score, all_of


class Asking(NamedTuple):
    """One way of putting a question, and the beginnings of an answer that stand for its options, in a fixed order."""

    messages: Sequence[Message]
    answers: Sequence[str]


class OptionReader:
    """Asks a model for the log-probabilities that its answer begins with given texts, exact and without sampling."""

    def __init__(self, policy: Role) -> None:
        self._policy = policy
        self._token_ids: dict[str, list[int]] = {}

    def read(self, askings: Sequence[Asking]) -> list[np.ndarray | Score]:
        """Log-probabilities of every asking's answers ([n_answers] nats, temperature 1), or why there are none."""
        faults = [self._fault(asking) for asking in askings]
        sound = [one for one, fault in zip(askings, faults, strict=True) if fault is None]
        requests = [ScoreRequest(one.messages, self._encode(answer)) for one in sound for answer in one.answers]
        rows = iter(self._policy.score(requests))
        return [
            Score(None, fault) if fault else _sums([next(rows) for _ in one.answers])
            for one, fault in zip(askings, faults, strict=True)
        ]

    def _fault(self, asking: Asking) -> str | None:
        """Why the answers cannot be told apart, because their probabilities would overlap or be one; else None."""
        ids = [self._encode(answer) for answer in asking.answers]
        if not all(ids):
            return "an option has no tokens"
        for i, one in enumerate(ids):
            for j, other in enumerate(ids):
                if i != j and other[: len(one)] == one:
                    return "the tokens of one option begin another, so they cannot be told apart"
        return None

    def _encode(self, answer: str) -> list[int]:
        if answer not in self._token_ids:
            self._token_ids[answer] = self._policy.engine.encode_opening(answer)
        return self._token_ids[answer]


def _sums(rows: Sequence[list[float] | Failed]) -> np.ndarray | Score:
    known = all_of(rows, "the question does not fit the context")
    return known if isinstance(known, Score) else np.array([fsum(row) for row in known])
