"""How different the answers are from one another: within a prompt and across prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import fsum

from pipeline.scorers.base import SampledPrompt, Score, Worse


class Diversity:
    """Mean distances between answers (see ``distance``), in [0, 1]; low is bad: answers have become alike.

    * ``diversity.within``: over all pairs of one prompt's answers. Its mean does not depend on how many there are.
    * ``diversity.across``: between the first answers of two prompts, neighbours in the order given. Pairs are disjoint
      and the value belongs to the first of the two, so that values are independent and intervals over prompts hold.
    """

    columns: Mapping[str, Worse] = {"diversity.within": "low", "diversity.across": "low"}

    def score_prompts(self, prompts: Sequence[SampledPrompt]) -> Mapping[str, Sequence[Score | None]]:
        """A score within every prompt, and one across for the first of every two; a lone last prompt has none."""
        within = [_mean_distance([sample.token_ids for sample in prompt.samples]) for prompt in prompts]
        across: list[Score | None] = [None] * len(prompts)
        for i in range(0, len(prompts) - 1, 2):
            firsts = [prompt.samples[0].token_ids for prompt in prompts[i : i + 2] if prompt.samples]
            across[i] = _mean_distance(firsts)
        return {"diversity.within": within, "diversity.across": across}


def distance(one: Sequence[int], other: Sequence[int]) -> float:
    """1 - Jaccard similarity of the sets of token bigrams, both answers cut to the length of the shorter.

    Cut, because a longer text has more bigrams, and a policy that writes longer answers is not more diverse for it.
    The beginning counts as a token, so that a single token makes a bigram.
    """
    length = min(len(one), len(other))
    a, b = (_bigrams(tokens[:length]) for tokens in (one, other))
    return 1 - len(a & b) / len(a | b) if length else 0.0


def _bigrams(tokens: Sequence[int]) -> set[tuple[int, int]]:
    return set(zip([-1, *tokens], tokens, strict=False))


def _mean_distance(answers: Sequence[Sequence[int]]) -> Score:
    if len(answers) < 2:
        return Score(None, "fewer than two answers to compare")
    distances = [distance(one, other) for one, other in combinations(answers, 2)]
    return Score(fsum(distances) / len(distances))
