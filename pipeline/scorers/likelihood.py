"""Scores that need log-probabilities: distance from the base, and how ordinary the base finds the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.engines.base import Failed, ScoreRequest
from pipeline.engines.roles import Role
from pipeline.scorers.base import Sample, Score, Worse, all_of


class Likelihood:
    """``kl`` and ``nll_base`` from one pass under the policy and one under the base.

    * ``kl``: nats per token, >= 0, high is far. With d = log p_base(y_t) - log p_policy(y_t) the mean over a
      response's tokens of exp(d) - 1 - d, the non-negative estimator of KL(policy || base) whose terms are
      unbiased at each sampled token (Schulman 2020, "Approximating KL divergence", k3).
    * ``nll_base``: nats per token, mean of -log p_base. Both ends are watched: iterated self-training piles up
      at low values and may grow a tail at high ones (Shumailov et al. 2024).
    """

    worse: Mapping[str, Worse] = {"kl": "high", "nll_base": "both"}

    def __init__(self, names: Sequence[str], policy: Role, base: Role) -> None:
        self._policy, self._base = policy, base
        self.columns: Mapping[str, Worse] = {name: self.worse[name] for name in names}

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, Sequence[Score]]:
        """One score per sample and column; a response without tokens has none."""
        requests = [ScoreRequest(sample.prompt, sample.token_ids) for sample in samples]
        base = self._base.score(requests)
        scores: dict[str, list[Score]] = {}
        if "nll_base" in self.columns:
            scores["nll_base"] = [_mean(np.negative, row) for row in base]
        if "kl" in self.columns:
            same = self._policy.adapter is None
            policy = base if same else self._policy.score(requests)
            scores["kl"] = [_mean(_k3, b, p) for b, p in zip(base, policy, strict=True)]
        return scores


def _k3(base: np.ndarray, policy: np.ndarray) -> np.ndarray:
    difference = base - policy
    return np.expm1(difference) - difference


def _mean(of: Callable[..., np.ndarray], *rows: list[float] | Failed) -> Score:
    """The mean over a response's tokens of what is made from their log-probabilities."""
    known = all_of(rows, "no tokens to score")
    return known if isinstance(known, Score) else Score(float(of(*map(np.array, known)).mean()))
