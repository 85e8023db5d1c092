"""How much of an answer's content its rewrite keeps, by how likely the rewrite makes the answer, fact by fact."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.engines.base import Failed, Message, ScoreRequest
from pipeline.engines.roles import Role
from pipeline.errors import InputError, LogProbabilityError
from pipeline.scorers.base import Score, all_of, failures

LEAST_GAIN = 0.05
"""Nats per token by which an answer must make its own facts likelier for a share of that to mean anything."""

_END_OF_SENTENCE = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))(?=\s)|(?=\n)|$")


class Rewritten(NamedTuple):
    """An answer to a dialogue, its rewrite, and the facts that must survive; if none are listed, its sentences."""

    prompt: Sequence[Message]
    response: str
    revision: str
    facts: Sequence[str] = ()

    @property
    def changed(self) -> bool:
        """Whether the rewrite differs in more than white space."""
        return self.response.split() != self.revision.split()


class Kept(NamedTuple):
    """The share of an answer's content that its rewrite keeps, and what it is computed from.

    Attributes:
        share: the share, in [0, 1], or why there is none.
        n_facts: number of facts scored; 0 where the rewrite changed nothing.
        nothing: mean nats per token of the facts with no answer shown; None where they were not scored.
        response: the same with the answer shown.
        revision: the same with its rewrite shown.
    """

    share: Score
    n_facts: int = 0
    nothing: float | None = None
    response: float | None = None
    revision: float | None = None


class _Fact(NamedTuple):
    """The tokens ``start`` to ``stop`` of a reply."""

    reply: tuple[int, ...]
    start: int
    stop: int


class ContentReader:
    """Measures how much of an answer's content a rewrite keeps, with a frozen model that reads both.

    The model is asked to repeat what it said, and l_f(x) is how likely it then is to say the fact f: the sum over
    the tokens of f of log p(f_t | dialogue, x, request, what precedes f_t in the answer), in nats, with x, the answer
    or its rewrite, shown as the assistant's turn. l_f(nothing) is the same for the dialogue alone. With
    g_f = max(l_f(answer) - l_f(nothing), 0), what the answer tells the model about its fact,

        share = sum_f clip(l_f(rewrite) - l_f(nothing), 0, g_f) / sum_f g_f.

    1: the rewrite makes every fact as likely as the answer itself does. 0: none is likelier than with neither shown.
    Low is bad. Each fact is clipped by itself, so that a lost one, however unlikely, costs no more than its own part.
    Facts are the listed ones, scored where they appear in the answer (or as the beginning of the reply if they do
    not); if none are listed, all sentences of the answer. Content in other words counts in part. Where sum_f g_f is
    below ``LEAST_GAIN`` per token, the answer tells the model nothing and the share is missing. An unchanged answer
    kept everything; the model is not asked.

    Args:
        base: the model, which must be the same in all rounds.
        ask: the request to repeat what was said.
    """

    def __init__(self, base: Role, ask: str) -> None:
        self._base, self._ask = base, ask

    def read(self, rewrites: Sequence[Rewritten]) -> list[Kept]:
        """One share per rewrite; missing, with the reason, where the model reports no log-probabilities."""
        try:
            return self._read(rewrites)
        except LogProbabilityError as error:
            return [Kept(Score(None, str(error)) if one.changed else Score(1.0)) for one in rewrites]

    def _read(self, rewrites: Sequence[Rewritten]) -> list[Kept]:
        found: list[Kept | None] = [None if one.changed else Kept(Score(1.0)) for one in rewrites]
        requests: list[ScoreRequest] = []
        asked: list[tuple[int, list[_Fact], dict[tuple[int, ...], int]]] = []
        for i, one in enumerate(rewrites):
            if found[i] is not None:
                continue
            try:
                facts = list(self._facts(one))
            except InputError as error:
                found[i] = Kept(Score(None, str(error)))
                continue
            replies = list(dict.fromkeys(fact.reply for fact in facts))
            asked.append((i, facts, {reply: len(requests) + 3 * k for k, reply in enumerate(replies)}))
            # Each dialogue is one list, so that the engine tokenises it once.
            shown = [one.prompt, *(self._after(one.prompt, text) for text in (one.response, one.revision))]
            requests += [ScoreRequest(messages, reply) for reply in replies for messages in shown]
        rows = self._base.score(requests)
        for i, facts, places in asked:
            at = [(fact, places[fact.reply]) for fact in facts]
            found[i] = _kept([[_part(row, fact) for row in rows[k : k + 3]] for fact, k in at])
        return [one for one in found if one is not None]

    def _facts(self, one: Rewritten) -> Iterator[_Fact]:
        encode = self._base.engine.encode_opening
        answer = tuple(encode(one.response))
        for span in [_find(fact, one.response) or fact for fact in one.facts] or _sentences(one.response):
            if isinstance(span, str):
                reply = tuple(encode(span))
                yield _Fact(reply, 0, len(reply))
            else:
                start, stop = (len(encode(one.response[:place].rstrip())) if place else 0 for place in span)
                yield _Fact(answer, start, stop)

    def _after(self, prompt: Sequence[Message], text: str) -> Sequence[Message]:
        return [*prompt, {"role": "assistant", "content": text}, {"role": "user", "content": self._ask}]


def _find(fact: str, answer: str) -> tuple[int, int] | None:
    """Where a fact appears in an answer, compared word by word in any case; None where it does not."""
    found = re.search(r"\s+".join(map(re.escape, fact.split())), answer, re.IGNORECASE)
    return found.span() if found else None


def _sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences and lines of a text begin and end; those without a letter belong to the next one."""
    spans, start = [], 0
    for found in _END_OF_SENTENCE.finditer(text):
        if any(map(str.isalpha, text[start : found.start()])):
            spans.append((start, found.start()))
            start = found.start()
    return spans


def _part(row: list[float] | Failed, fact: _Fact) -> list[float] | Failed:
    return row if isinstance(row, Failed) else row[fact.start : fact.stop]


def _kept(facts: Sequence[Sequence[list[float] | Failed]]) -> Kept:
    """The share, from the log-probabilities of each fact's tokens with nothing, the answer and its rewrite shown."""
    unfit = "no fact has tokens and fits the context"
    read = [all_of(three, unfit) for three in facts]
    if failed := failures(one for one in read if isinstance(one, Score)):
        return Kept(Score(None, failed[0]))
    known = [three for three in read if not isinstance(three, Score)]
    if not known:
        return Kept(Score(None, unfit))
    sums = np.array([[sum(tokens) for tokens in three] for three in known])
    n_tokens = sum(len(three[0]) for three in known)
    gains = np.maximum(sums[:, 1] - sums[:, 0], 0.0)
    nothing, response, revision = (sums.sum(axis=0) / n_tokens).tolist()
    if gains.sum() < LEAST_GAIN * n_tokens:
        reason = f"the answer makes its own facts likelier by less than {LEAST_GAIN} nats per token"
        return Kept(Score(None, reason), len(known), nothing, response, revision)
    share = float(np.clip(sums[:, 2] - sums[:, 0], 0.0, gains).sum() / gains.sum())
    return Kept(Score(share), len(known), nothing, response, revision)
