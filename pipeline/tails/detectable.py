"""What this many prompts and samples could have detected: the absence of an alarm is worth no more than that."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from pipeline.tails.arrays import Floats, Tail, canonical, flatten, orientation
from pipeline.tails.swap import tail_scores

POWER = 0.8
# Below this the normal approximation, and any number from it, means nothing.
MIN_PROMPTS = 30
# Mean square of an exponential score, and of a prompt's difference when one of its samples has one.
_SQUARED_SCORE = 2.0


class Detectable(NamedTuple):
    """The smallest rise of the rate beyond a threshold that is detected with a probability of 80%."""

    ratio: float  # rate beyond the threshold now over that of the baseline; NaN: not identified
    baseline_rate: float
    threshold: float
    level: float
    n_prompts: int
    k: float  # mean number of samples per prompt, over both rounds

    def sentence(self) -> str:
        """Return it in words."""
        size = f"{self.n_prompts} prompts x {self.k:.3g} samples"
        if np.isnan(self.ratio):
            return f"{size}: too little to say what would have been found."
        return (
            f"{size} would have found, with a probability of 80%, a rate beyond {self.threshold:.4g} that rose from "
            f"{self.baseline_rate:.2%} to {self.baseline_rate * self.ratio:.2%} (x {self.ratio:.2f}); harm far beyond "
            "it is found sooner, and a smaller rise may be there undetected."
        )


def smallest_detectable(
    before: Floats, after: Floats, thresholds: Sequence[float], *, tail: Tail, level: float
) -> Detectable:
    """Solve (z_level + z_power)^2 Var(d) = n (p_r - p_0)^2 for the rate p_r (tails beyond a threshold, one-sided).

    This is the power of the first column of `tail_max`, at the level divided by the number of its columns, so that of
    the whole test is a little higher. d are the prompts' paired differences in tail score, whose mean over the samples
    beyond the threshold is 1 while they lie no further out than before: then the mean of d is p_r - p_0. Var(d), as
    observed over both rounds, grows with the rate as V = p (1-p) [1 + (k-1) rho] / k does; it includes the design
    effect and the correlation between rounds. One prompt's worth of events is added, so that a tail in which no event
    was seen is not taken for one that never has any.

    Args:
        before: baseline scores, [n_prompts, k].
        after: current scores of the same prompts, [n_prompts, k'].
        thresholds: where the tail begins and further thresholds, in the units of the scores; empty where it is not
            identified.
        tail: the bad end of the scores.
        level: significance level of the test.
    """
    sign = orientation(tail)
    (first, second), _ = canonical(sign * before, sign * after)
    n_prompts = len(first)
    nan = float("nan")
    threshold = thresholds[0] if len(thresholds) else nan
    if np.isnan(threshold) or n_prompts < MIN_PROMPTS:
        return Detectable(nan, nan, threshold, level, n_prompts, nan)
    sides = [flatten(side) for side in (first, second)]
    k = float(np.mean([side.counts.mean() for side in sides]))
    rates = [(side.fraction_above(sign * threshold).sum() + 0.5) / (n_prompts + 1) for side in sides]
    then, now = tail_scores(first, second, np.array([sign * threshold]), power=1)
    spread = ((now - then) ** 2).sum() + _SQUARED_SCORE
    # Var(d) per unit of p_0 (1 - p_0) + p_r (1 - p_r).
    unit = spread / (n_prompts + 1) / sum(rate * (1 - rate) for rate in rates)
    n_columns = 1 + max(len(thresholds) - 1, 1)
    reach = scipy.stats.norm.isf(level / n_columns) + scipy.stats.norm.ppf(POWER)
    rate = rates[0]

    def shortfall(risen: float) -> float:
        variance = unit * (rate * (1 - rate) + risen * (1 - risen))
        return float((risen - rate) * np.sqrt(n_prompts) - reach * np.sqrt(variance))

    if shortfall(1.0) < 0:
        return Detectable(nan, rate, threshold, level, n_prompts, k)
    risen = scipy.optimize.brentq(shortfall, rate, 1.0)
    return Detectable(float(risen / rate), float(rate), threshold, level, n_prompts, k)
