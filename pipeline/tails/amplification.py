"""How much more common something is in one set of texts than in another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from pipeline.tails.clustering import effective_size


class ShareRatio(NamedTuple):
    """A ratio of two shares.

    Attributes:
        before: the share in the denominator.
        after: the share in the numerator.
        value: after / before; NaN where both are zero.
        low: lower end of the interval.
        high: upper end of the interval; infinite where ``before`` is zero.
    """

    before: float
    after: float
    value: float
    low: float
    high: float


def share_ratio(before: np.ndarray, after: np.ndarray, *, level: float = 0.95) -> ShareRatio:
    """The ratio of two shares of independent texts, with an interval on the log scale.

    Log-normal (Katz et al. 1978, Biometrics 34) on effective counts, since samples of a prompt are alike; for the
    interval half an event is added to each side, so that a side without events still bounds the ratio at one end.

    Args:
        before: flags, 0, 1 or NaN (missing), [n_prompts, k].
        after: the same for other texts, [m_prompts, j].
        level: coverage of the interval.

    Raises:
        ValueError: one side has no texts.
    """
    if np.isnan(before).all() or np.isnan(after).all():
        raise ValueError("a ratio of shares needs texts on both sides")
    shares, logs, noise = [], [], 0.0
    for flags in (before, after):
        known = flags[~np.isnan(flags).all(axis=1)]
        fractions = np.nanmean(known, axis=1)
        n = effective_size(fractions, int((~np.isnan(known)).sum()))
        share = float(fractions.mean())
        hits = n * share
        shares.append(share)
        logs.append(np.log((hits + 0.5) / (n + 0.5)))
        noise += 1 / (hits + 0.5) - 1 / (n + 0.5)
    reach = scipy.stats.norm.ppf((1 + level) / 2) * np.sqrt(noise)
    low, high = np.exp(logs[1] - logs[0] - reach), np.exp(logs[1] - logs[0] + reach)
    if not shares[0]:
        value = float("inf") if shares[1] else float("nan")
        return ShareRatio(shares[0], shares[1], value, float(low) if shares[1] else 0.0, float("inf"))
    return ShareRatio(shares[0], shares[1], shares[1] / shares[0], float(low) if shares[1] else 0.0, float(high))
