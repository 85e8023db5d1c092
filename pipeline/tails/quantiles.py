"""Quantiles by order statistics, and their paired change by the bootstrap over prompts."""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats, Samples, Tail, as_scores, canonical, flatten, orientation
from pipeline.tails.clustering import quantile_effective_size
from pipeline.tails.resample import Replicates

# Relative to the number of prompts: sums of masses such as 1/3 reach a whole number only up to rounding.
ROUNDING = 1e-9
# Half-width, in standard errors, of the window of samples in which replicates of a quantile are looked for.
WINDOW_ERRORS = 5.0


def quantile(samples: Samples, q: float) -> float:
    """Return inf{x: F(x) >= q} of the panel's weighted distribution."""
    return float(samples.values[_rank(samples, 1 - q)])


def order_statistic_interval(samples: Samples, q: float, level: float) -> tuple[float, float]:
    """Return the order-statistic interval of a quantile, with the design effect of clustered samples.

    Binomial order statistics (David & Nagaraja 2003, Order Statistics, 7.1) at the effective sample size of
    the event "beyond the quantile" (Woodruff 1952, JASA 47:635). An end is infinite where the sample does not
    bound it; the other end then takes the whole error probability, as a one-sided bound does.
    """
    size = round(quantile_effective_size(samples, quantile(samples, q)))
    tail = (1 - level) / 2
    below, above = scipy.stats.binom.ppf([tail, 1 - tail], size, q) + np.array([0, 1])
    if above > size:
        below = scipy.stats.binom.ppf(1 - level, size, q)
    elif below < 1:
        above = scipy.stats.binom.ppf(level, size, q) + 1
    low = quantile(samples, below / size) if below >= 1 else -np.inf
    high = quantile(samples, above / size) if above <= size else np.inf
    return low, high


def enough_for_quantile(samples: Samples, q: float) -> bool:
    """Whether at least one sample's worth of mass lies beyond the quantile, on the shorter side."""
    return len(samples.values) * min(q, 1 - q) >= 1 - ROUNDING


def frozen_threshold(calibration: ArrayLike, q: float = 0.99, *, tail: Tail = "upper") -> float:
    """Return the threshold that a fraction 1 - q of round 0's samples lies beyond, to keep for all rounds.

    Take it from prompts that are not in the panel: a threshold from the panel itself fixes the panel's
    round-0 rate by construction, and every change then carries the threshold's own noise.

    Args:
        calibration: round-0 scores [n_prompts, k].
        q: level of the quantile.
        tail: "upper", or "lower" for scores that go wrong at their low end.

    Returns:
        The threshold, or NaN where the calibration is too small (fewer than 1 / (1 - q) samples).

    Raises:
        InputError: scores or q out of range, or an unknown tail.
    """
    sign = orientation(tail)
    if not 0 < q < 1:
        raise InputError(f"q: expected a level between 0 and 1, got {q}")
    (panel,), _ = canonical(sign * as_scores(calibration, "calibration"))
    samples = flatten(panel)
    if len(samples.values) == 0 or not enough_for_quantile(samples, q):
        return float("nan")
    return sign * quantile(samples, q)


class QuantileChange(NamedTuple):
    """The change of one quantile between two panels of the same prompts."""

    baseline: Samples
    current: Samples
    q: float

    def replicate(self, weights: Floats) -> Replicates:
        """Return the paired differences under `weights`, [n_prompts, replicates]."""
        before = quantile_replicates(self.baseline, self.q, weights)
        after = quantile_replicates(self.current, self.q, weights)
        return Replicates(after - before, None)


def quantile_replicates(samples: Samples, q: float, weights: Floats) -> Floats:
    """Return the quantile under each column of `weights`, [replicates].

    Only the samples near the quantile are summed one by one; if a replicate falls outside this window, the block
    is computed again from all of them.
    """
    share = 1 - q
    size = quantile_effective_size(samples, quantile(samples, q))
    reach = WINDOW_ERRORS * np.sqrt(q * share / size) + WINDOW_ERRORS / size
    start = _rank(samples, max(share - reach, 0.0))
    stop = _rank(samples, min(share + reach, 1.0)) + 1
    places = _places(samples, share, weights, start, stop)
    if (places < start).any() or (places == stop).any():
        places = _places(samples, share, weights, 0, len(samples.values))
    return samples.values[np.minimum(places, len(samples.values) - 1)]


def _rank(samples: Samples, share: float) -> int:
    """Return the place of the largest value that has at most `share` of the mass strictly above it."""
    limit = (share + ROUNDING) * samples.n_prompts
    return min(int(np.searchsorted(samples.cumulative, limit, side="right")), len(samples.values) - 1)


def _places(samples: Samples, share: float, weights: Floats, start: int, stop: int) -> NDArray[np.intp]:
    """Return the place of each replicate's quantile; start - 1 or stop where it lies outside the window."""
    limit = (share + ROUNDING) * samples.n_prompts
    head = samples.fractions(start) @ weights
    above = weights[samples.prompts[start:stop]]
    above *= samples.masses[start:stop, None]
    np.cumsum(above, axis=0, out=above)
    above += head
    return start + (above <= limit).sum(axis=0) - (head > limit)
