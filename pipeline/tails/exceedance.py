"""How often scores lie beyond a frozen threshold, and how that rate changed."""

import numpy as np
import scipy

from pipeline.tails.arrays import Floats
from pipeline.tails.clustering import effective_size


def rate_interval(fractions: Floats, n_samples: int, level: float) -> tuple[float, float]:
    """Return the Jeffreys interval of an event rate at the effective sample size.

    Jeffreys' prior (Brown, Cai & DasGupta 2001, Stat. Sci. 16:101) with the design effect (Franco, Little,
    Louis & Slud 2019, J. Surv. Stat. Methodol. 7:334). Without any event the low end is 0; with only events
    the high end is 1.

    Args:
        fractions: each prompt's fraction of samples beyond the threshold, [n_prompts].
        n_samples: number of samples over all prompts.
        level: coverage of the interval.
    """
    rate = float(fractions.mean())
    size = effective_size(fractions, n_samples)
    tail = (1 - level) / 2
    low, high = scipy.stats.beta.ppf([tail, 1 - tail], rate * size + 0.5, (1 - rate) * size + 0.5).tolist()
    low, high = low if rate > 0 else 0.0, high if rate < 1 else 1.0
    return min(low, rate), max(high, rate)


def rate_change(
    baseline: Floats, current: Floats, n_samples: tuple[int, int], level: float
) -> tuple[float, float, float]:
    """Return the difference of two rates on the same prompts, and its interval.

    The two rates' own intervals are combined, with the correlation between the prompts' fractions (MOVER:
    Newcombe 1998, Stat. Med. 17:2635; Zou & Donner 2008, Stat. Med. 27:1693).
    """
    rates = float(baseline.mean()), float(current.mean())
    intervals = rate_interval(baseline, n_samples[0], level), rate_interval(current, n_samples[1], level)
    return _combine(rates, intervals, _correlation(baseline, current))


def rate_ratio(
    baseline: Floats, current: Floats, n_samples: tuple[int, int], level: float
) -> tuple[float, float, float]:
    """Return theta = (sum e_current + 1/2) / (sum e_baseline + 1/2) on the same prompts, and its interval.

    The interval combines those of the two rates on the log scale (Zou & Donner 2008). Without current events
    it starts at 0; without baseline events it has no upper end.
    """
    n_prompts = len(current)
    logs = (
        float(np.log((baseline.sum() + 0.5) / n_prompts)),
        float(np.log((current.sum() + 0.5) / n_prompts)),
    )
    with np.errstate(divide="ignore"):
        ends = [
            np.log(rate_interval(fractions, size, level))
            for fractions, size in zip((baseline, current), n_samples, strict=True)
        ]
    intervals = tuple((min(float(end[0]), log), max(float(end[1]), log)) for end, log in zip(ends, logs, strict=True))
    value, low, high = _combine(logs, (intervals[0], intervals[1]), _correlation(baseline, current))
    return float(np.exp(value)), float(np.exp(low)), float(np.exp(high))


def _combine(
    values: tuple[float, float],
    intervals: tuple[tuple[float, float], tuple[float, float]],
    correlation: float,
) -> tuple[float, float, float]:
    """Return current - baseline with the interval that follows from each side's own (baseline first)."""
    (baseline, current), ((baseline_low, baseline_high), (low, high)) = values, intervals
    difference = current - baseline
    down = _length(current - low, baseline_high - baseline, correlation)
    up = _length(high - current, baseline - baseline_low, correlation)
    return difference, difference - down, difference + up


def _length(one: float, other: float, correlation: float) -> float:
    if np.isinf(one) or np.isinf(other):
        return np.inf
    return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))


def _correlation(one: Floats, other: Floats) -> float:
    """Return the correlation between prompts; 0 where a side does not vary."""
    return 0.0 if one.std() == 0 or other.std() == 0 else float(np.corrcoef(one, other)[0, 1])
