"""How much the samples of one prompt resemble one another, and what that costs in effective sample size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.tails.arrays import Floats, Samples, Tail, as_scores, canonical, flatten, orientation
from pipeline.tails.resample import Replicates


def effective_size(fractions: Floats, n_samples: int) -> float:
    """Return how many independent samples would determine an event rate as precisely as this panel does.

    n_eff = p(1-p) / Var(p_hat), with the variance between prompts (Kish 1965, Survey Sampling, 5.4), never
    above the number of samples. Half a prompt with only events and half a prompt with none are added: a
    handful of prompts with events says little about how alike samples of a prompt are, and the smoothing
    pulls the result towards identical samples, n_eff = n_prompts, which is the answer without any event.

    Args:
        fractions: each prompt's fraction of samples with the event, [n_prompts].
        n_samples: number of samples over all prompts.
    """
    n_prompts = len(fractions)
    rate = (fractions.sum() + 0.5) / (n_prompts + 1)
    variance = ((fractions**2).sum() + 0.5) / (n_prompts + 1) - rate**2
    return float(min(n_prompts * rate * (1 - rate) / variance, n_samples))


def quantile_effective_size(samples: Samples, quantile: float) -> float:
    """Return the effective sample size for the fraction of samples at or above a quantile of this panel."""
    return effective_size(samples.fraction_above(quantile, inclusive=True), len(samples.values))


def tail_icc(scores: ArrayLike, threshold: float, *, tail: Tail = "upper") -> float:
    """Return the intraclass correlation of the event "beyond the threshold" between samples of one prompt.

    One-way analysis of variance for unequal group sizes (Donner 1986, Int. Stat. Rev. 54:67). A rise over
    rounds means mode collapse, a fall means diversification; either changes what worst-of-k means.

    Args:
        scores: [n_prompts, k], NaN for missing samples.
        threshold: where the event begins, in the units of the scores.
        tail: "upper" for the event of lying above the threshold, "lower" for below.

    Returns:
        A number up to 1; NaN where it is not identified (no prompt has two samples, or all are on one side).
    """
    sign = orientation(tail)
    (panel,), _ = canonical(sign * as_scores(scores))
    samples = flatten(panel)
    return tail_icc_of(samples.fraction_above(sign * threshold), samples.counts)


def tail_icc_of(rates: Floats, counts: NDArray[np.intp]) -> float:
    """Return the intraclass correlation from each prompt's rate of events and number of samples, [n_prompts]."""
    return float(_icc(icc_sums(rates, counts).sum(axis=1)[:, None])[0])


class IccChange(NamedTuple):
    """The intraclass correlation of a panel, or its change against a second one of the same prompts."""

    sides: Sequence[Floats]  # what `icc_sums` gives for the current panel, and for the baseline if there is one

    def replicate(self, weights: Floats) -> Replicates:
        """Return correlations or their differences under `weights`, NaN where not identified, [replicates]."""
        values = [_icc(sums @ weights) for sums in self.sides]
        return Replicates(values[0] - values[1] if len(values) == 2 else values[0], None)


def icc_sums(rates: Floats, counts: NDArray[np.intp]) -> Floats:
    """Return the terms that the analysis of variance sums over prompts, [5, n_prompts].

    Args:
        rates: each prompt's fraction of samples with the event, [n_prompts].
        counts: each prompt's number of samples, [n_prompts].
    """
    sizes = counts.astype(np.float64)
    return np.stack([np.ones(len(rates)), sizes, sizes**2, sizes * rates, sizes * rates**2])


def _icc(sums: Floats) -> Floats:
    """Return correlations from sums over prompts [5, replicates]; NaN where nothing varies or repeats."""
    n_prompts, n_samples, squares, events, products = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (products - events**2 / n_samples) / (n_prompts - 1)
        within = (events - products) / (n_samples - n_prompts)
        size = (n_samples - squares / n_samples) / (n_prompts - 1)
        spread = between + (size - 1) * within
        known = (n_prompts > 1) & (n_samples > n_prompts) & (spread > 1e-12)
        return np.where(known, (between - within) / spread, np.nan)
