"""Phrases that a policy uses more and more often, found without a predefined list."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from pipeline.tails.boilerplate import discoveries, sign_tests

SIZES = (3, 4, 6, 8)
"""Phrase lengths in words; punctuation marks count."""

SHOWN = 20
_LEAST_PROMPTS = 10
_LEAST_SHARE = 0.01
_LEAST_RISE = 0.01
_SAME = 0.5
"""Phrases whose answers overlap at least this much (Jaccard) are parts of one phrase, and only one is reported."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")

Answers = Mapping[tuple[str, int], str]
"""Texts by prompt id and sample."""


class Phrase(NamedTuple):
    """A phrase, the share of answers that contain it before and after, and the p-value of its rise (one-sided)."""

    text: str
    before: float
    after: float
    p_value: float


def rising_phrases(before: Answers, after: Answers) -> list[Phrase]:
    """The phrases whose share of answers rose between two rounds, largest rise first; at most ``SHOWN``.

    Candidates appear in at least 1% of a round's answers, and in answers to at least ten of its prompts. Each is
    tested on the prompts that both rounds have, and at most 5% of those that pass are false discoveries on average;
    reported are those that rose by at least a percentage point.
    """
    shared = sorted({key[0] for key in before} & {key[0] for key in after})
    if not shared:
        return []
    row = {prompt: i for i, prompt in enumerate(shared)}
    keys = [(side, key) for side, of in enumerate((before, after)) for key in of if key[0] in row]
    texts = [split_words((before, after)[side][key]) for side, key in keys]
    sides, prompts = (np.array(column) for column in zip(*((s, row[key[0]]) for s, key in keys), strict=True))
    found: list[tuple[Phrase, frozenset[int]]] = []
    for size in SIZES:
        found += _candidates(texts, sides, prompts, size)
    kept = discoveries(np.array([phrase.p_value for phrase, _ in found]))
    passed = [pair for pair, keep in zip(found, kept, strict=True) if keep]
    rising = [(phrase, said) for phrase, said in passed if phrase.after - phrase.before >= _LEAST_RISE]
    rising.sort(key=lambda pair: (pair[0].before - pair[0].after, -len(pair[0].text), pair[0].text))
    return list(_distinct(rising))


def in_words(text: str) -> str:
    """A text in which phrases are found: its words between single spaces, with one at each end."""
    return f" {' '.join(split_words(text))} "


def split_words(text: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return _WORD.findall(text.lower().replace("’", "'"))


def _candidates(
    texts: Sequence[Sequence[str]], sides: np.ndarray, prompts: np.ndarray, size: int
) -> Iterator[tuple[Phrase, frozenset[int]]]:
    """Phrases of one size with their tests, and the later answers that contain them."""
    holds, where = _incidence(texts, size)
    of_side = [holds[:, np.flatnonzero(sides == side)] for side in (0, 1)]
    counts = [np.asarray(one.sum(axis=1)).ravel() for one in of_side]
    shares = [count / one.shape[1] for count, one in zip(counts, of_side, strict=True)]
    # Candidates are chosen without regard to which round has more, or their tests would no longer be tests.
    common = np.flatnonzero(np.maximum(*shares) >= _LEAST_SHARE)
    by_prompt = [
        one[common] @ _averages(prompts[sides == side], int(prompts.max()) + 1) for side, one in enumerate(of_side)
    ]
    n_prompts = np.maximum(*(np.asarray((one > 0).sum(axis=1)).ravel() for one in by_prompt))
    change = (by_prompt[1] - by_prompt[0]).tocsr()
    rose, fell = (np.asarray((sign * change > 1e-12).sum(axis=1)).ravel() for sign in (1, -1))
    p_values = sign_tests(rose, fell)
    for i, code in enumerate(common):
        document, start = where[code]
        words = texts[document][start : start + size]
        if n_prompts[i] >= _LEAST_PROMPTS and words[0].isalnum() and sum(map(str.isalnum, words)) > 1:
            phrase = Phrase(" ".join(words), float(shares[0][code]), float(shares[1][code]), float(p_values[i]))
            yield phrase, frozenset(of_side[1][code].indices.tolist())


def _incidence(texts: Sequence[Sequence[str]], size: int) -> tuple[scipy.sparse.csr_matrix, list[tuple[int, int]]]:
    """Which phrases occur in which texts, [n_phrases, n_texts] of 0 and 1; and a text and position for each phrase."""
    lengths = np.array([len(text) for text in texts])
    words = [word for text in texts for word in text]
    documents = np.repeat(np.arange(len(texts)), lengths)
    places = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    vocabulary, single = np.unique(words, return_inverse=True) if words else (np.zeros(0), np.zeros(0, dtype=int))
    codes, last = single.astype(np.int64), max(len(words) - size + 1, 0)
    for step in range(1, size):
        # Renumbered after every word, so that codes stay exact.
        codes = np.unique(codes[: len(words) - step] * len(vocabulary) + single[step:], return_inverse=True)[1]
    inside = np.flatnonzero(documents[:last] == documents[len(words) - last :]) if last else np.zeros(0, dtype=int)
    phrases, first, inverse = np.unique(codes[:last][inside], return_index=True, return_inverse=True)
    pairs = np.unique(inverse * len(texts) + documents[:last][inside]) if len(inside) else np.zeros(0, dtype=int)
    shape = (len(phrases), len(texts))
    holds = scipy.sparse.csr_matrix((np.ones(len(pairs)), (pairs // len(texts), pairs % len(texts))), shape=shape)
    at = inside[first]
    return holds, list(zip(documents[at].tolist(), places[at].tolist(), strict=True))


def _averages(prompts: np.ndarray, n_prompts: int) -> scipy.sparse.csr_matrix:
    """The matrix that turns flags per answer into shares per prompt, [n_answers, n_prompts]."""
    asked = np.bincount(prompts, minlength=n_prompts)
    rows = np.arange(len(prompts))
    return scipy.sparse.csr_matrix((1 / asked[prompts], (rows, prompts)), shape=(len(prompts), n_prompts))


def _distinct(rising: Sequence[tuple[Phrase, frozenset[int]]]) -> Iterator[Phrase]:
    said: list[frozenset[int]] = []
    for phrase, answers in rising:
        if len(said) < SHOWN and all(len(answers & other) < _SAME * len(answers | other) for other in said):
            said.append(answers)
            yield phrase
