"""The probabilities that a model gives to the options of a question."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import NamedTuple

import numpy as np

from pipeline.engines.base import Message, ScoreRequest
from pipeline.engines.roles import Role


class Asking(NamedTuple):
    """One way of putting a question, and the beginnings of an answer that stand for its options, in a fixed order."""

    messages: Sequence[Message]
    answers: Sequence[str]


class OptionReader:
    """Asks a model for the log-probabilities that its answer begins with given texts, exact and without sampling."""

    def __init__(self, policy: Role) -> None:
        self._policy = policy
        self._token_ids: dict[str, list[int]] = {}

    def read(self, askings: Sequence[Asking]) -> list[np.ndarray | str]:
        """Log-probabilities of every asking's answers ([n_answers] nats, temperature 1), or why there are none."""
        found: list[np.ndarray | str] = [self._fault(asking) or "" for asking in askings]
        wanted = [(i, answer) for i, asking in enumerate(askings) if not found[i] for answer in asking.answers]
        rows = self._policy.score([ScoreRequest(askings[i].messages, self._encode(answer)) for i, answer in wanted])
        scored: dict[int, list[float | None]] = {}
        for (i, _), row in zip(wanted, rows, strict=True):
            scored.setdefault(i, []).append(fsum(row) if row else None)
        for i, values in scored.items():
            sums = [value for value in values if value is not None]
            fits = len(sums) == len(values)
            found[i] = np.array(sums) if fits else "the question does not fit the context"
        return found

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
