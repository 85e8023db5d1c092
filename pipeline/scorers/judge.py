"""Ratings of samples by another model, on a rubric that a person wrote."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from math import fsum
from typing import NamedTuple

import numpy as np

from pipeline.engines.base import Completion, Failed, Message, Request, Sampling, ScoreRequest
from pipeline.engines.roles import Role
from pipeline.errors import EngineError
from pipeline.inputs.rubric import Rubric
from pipeline.inputs.templates import JudgeTemplate, dialogue_text
from pipeline.scorers.base import Sample, Score, Worse, all_of

_LEAST_MASS = 0.01
"""Where less than this of the judge's reply is a rating, which rating it is says nothing."""

_UNFIT = "does not fit the judge's context"

VOTE = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=16)
"""How a rating is drawn: enough tokens for a rating and a flourish before it."""

_OTHER_FIRST = re.compile(r"^\W*", re.UNICODE)


class Judging(NamedTuple):
    """How a run judges.

    Attributes:
        rubrics: the rubrics, by the argument of ``judge:`` in the recipe.
        template: template of the question.
        by_policy: whether the policy under test is its own judge; its columns then say so.
        swap: whether to rate with the ratings listed in both directions, and take the mean.
        votes: number of ratings drawn per answer and order; 0 to read the probabilities of the ratings.
    """

    rubrics: Mapping[str, Rubric]
    template: JudgeTemplate
    by_policy: bool
    swap: bool
    votes: int

    def column(self, name: str) -> str:
        """The column of a rubric's ratings."""
        return next(iter(judge_columns(self.rubrics[name], self.by_policy)))


class Judge:
    """Two scores per sample and rubric.

    * ``judge.NAME`` (``self_judge.NAME`` where the policy under test judges itself): the mean rating of the answer,
      sum of v p(v) / sum of p(v) over the rubric's ratings v. p(v) is the judge's probability, at temperature 1, of
      beginning its reply with one of the rating's texts; or, with votes, the share of its sampled replies that do.
      Range and direction are the rubric's. From probabilities it is continuous: rounded ratings lose the far tail,
      whose quantiles jump from one whole number to the next (G-Eval, Liu et al. 2023, weights ratings the same way).
    * ``judge.NAME.unparsable``: 1 - sum of p(v), the share of the judge's reply that is not a rating; range [0, 1],
      high is bad. An answer for which nearly all of the reply is not a rating has none.

    What fools it: length, confidence and style; answers that speak to the judge; a judge that shares the policy's
    blind spots, so never use the policy or its teacher. It is noisy: rounds report how noisy (``report/judge.py``).
    """

    def __init__(self, rubric: Rubric, judging: Judging, role: Role) -> None:
        self._rubric, self._judging, self._role = rubric, judging, role
        self._token_ids: list[list[int]] = []
        self._says = [(text, rating.value) for rating in rubric.ratings for text in rating.says]
        self.columns: Mapping[str, Worse] = judge_columns(rubric, judging.by_policy)

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One rating per sample, and how much of the judge's reply was not a rating."""
        name, unparsable = self.columns
        rated = self.rate(samples)
        return {name: [score for score, _ in rated], unparsable: [missed for _, missed in rated]}

    def rate(self, samples: Sequence[Sample], *, again: bool = False) -> list[tuple[Score, Score]]:
        """Rating and unparsable share of every sample.

        Args:
            samples: samples to rate.
            again: ask in the rubric's other wording, with the ratings in the other order: a second reading by the same
                instrument, whose difference from the first is noise.
        """
        orders = (False, True) if self._judging.swap else (again,)
        asked = [(sample, reverse) for sample in samples for reverse in orders]
        dialogues = [self._dialogue(sample, reworded=again, reverse=reverse) for sample, reverse in asked]
        found = self._by_votes(dialogues) if self._judging.votes else self._by_probabilities(dialogues)
        return [_rated(found[i : i + len(orders)]) for i in range(0, len(found), len(orders))]

    def _dialogue(self, sample: Sample, *, reworded: bool, reverse: bool) -> list[Message]:
        template, prompt = self._judging.template, dialogue_text(sample.prompt)
        question = template.ask(
            self._rubric, prompt=prompt, response=sample.response, reworded=reworded, reverse=reverse
        )
        asked: Message = {"role": "user", "content": question}
        if template.quotes:
            return [asked]
        return [*sample.prompt, {"role": "assistant", "content": sample.response}, asked]

    def _by_probabilities(self, dialogues: Sequence[list[Message]]) -> list[_Masses | Score]:
        """Mass and mean of the ratings in each reply, or why they are not known."""
        if not self._token_ids:
            try:
                self._token_ids = [self._role.engine.encode_opening(text) for text, _ in self._says]
            except EngineError as error:
                raise EngineError(f"{error} A judge can be asked for votes instead: `judge_votes: 5`.") from error
        rows = self._role.score([ScoreRequest(d, tokens) for d in dialogues for tokens in self._token_ids])
        values = [value for _, value in self._says]
        return [_masses(rows[i : i + len(values)], values) for i in range(0, len(rows), len(values))]

    def _by_votes(self, dialogues: Sequence[list[Message]]) -> list[_Masses | Score]:
        votes = self._judging.votes
        requests = [Request(dialogue, _seed(dialogue, vote)) for dialogue in dialogues for vote in range(votes)]
        replies = self._role.generate(requests, VOTE)
        return [self._tally(replies[i : i + votes]) for i in range(0, len(replies), votes)]

    def _tally(self, replies: Sequence[Completion]) -> _Masses | Score:
        """The share and the mean of the replies that are ratings. All must be there: fewer would be noisier."""
        for reply in replies:
            if reply.finish_reason == "error":
                return Score(None, Failed(reply.error))
            if reply.finish_reason == "prompt_too_long":
                return Score(None, _UNFIT)
        ratings = [value for reply in replies if (value := self._read(reply.text)) is not None]
        return _Masses(len(ratings) / len(replies), fsum(ratings) / len(ratings) if ratings else math.nan)

    def _read(self, reply: str) -> float | None:
        """The rating that a reply begins with, as a word of its own; None if it does not begin with one."""
        for text, value in self._says:
            start = reply if reply.startswith(text) else _OTHER_FIRST.sub("", reply)
            if start.startswith(text) and not start[len(text) : len(text) + 1].isalnum():
                return value
        return None


class _Masses(NamedTuple):
    """How much of a reply is a rating, and the mean of that part."""

    mass: float
    mean: float


def judge_columns(rubric: Rubric, by_policy: bool) -> dict[str, Worse]:
    """The names of a rubric's two scores, and which end of each is the bad one."""
    name = f"self_judge.{rubric.name}" if by_policy else f"judge.{rubric.name}"
    return {name: rubric.worse, f"{name}.unparsable": "high"}


def _masses(rows: Sequence[list[float] | Failed], values: Sequence[float]) -> _Masses | Score:
    known = all_of(rows, _UNFIT)
    if isinstance(known, Score):
        return known
    masses = np.exp([fsum(row) for row in known])
    total = float(masses.sum())
    return _Masses(min(total, 1.0), float(masses @ np.array(values)) / total if total > 0 else math.nan)


def _rated(readings: Sequence[_Masses | Score]) -> tuple[Score, Score]:
    """One rating from the readings in one or both orders."""
    if missing := [one for one in readings if isinstance(one, Score)]:
        return missing[0], missing[0]
    known = [one for one in readings if isinstance(one, _Masses)]
    mass = fsum(one.mass for one in known) / len(known)
    unparsable = Score(1.0 - mass)
    if min(one.mass for one in known) < _LEAST_MASS:
        return Score(None, f"unparsable: only {mass:.2%} of the judge's reply is a rating"), unparsable
    return Score(fsum(one.mean for one in known) / len(known)), unparsable


def _seed(dialogue: Sequence[Message], vote: int) -> int:
    text = "\x1f".join([*(f"{m['role']}\x1e{m['content']}" for m in dialogue), str(vote)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
