"""Return levels from a generalised Pareto tail: scores so rare that the sample hardly contains one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy

from pipeline.tails.arrays import Floats, Samples, flatten
from pipeline.tails.quantiles import order_statistic_interval, quantile
from pipeline.tails.resample import Replicates

THRESHOLD_LEVEL = 0.97
EXCEEDED_ONCE_IN = 1000
MIN_SAMPLES = 50
MIN_PROMPTS = 25
# This share of the samples beyond the threshold must be distinct values: a curve through a few grades means nothing.
MIN_DISTINCT = 0.5
# A fit outside this interval of the plain quantile does not describe the tail: grades, bounds and mixtures end here.
AGREEMENT_LEVEL = 0.95
# Share of the resamples whose tail must have a mean.
MIN_FITTED = 0.5

Map = Callable[[Floats | float], Floats]


class ReturnLevelChange(NamedTuple):
    """The score that one sample in 1,000 exceeds, or its change against a second panel of the same prompts.

    Excesses over u follow the survival (1 + xi y / sigma)^(-1 / xi) (Pickands 1975, Ann. Stat. 3:119), fitted by
    probability-weighted moments (Hosking & Wallis 1987, Technometrics 29:339); the level exceeded with probability p
    is u + (sigma / xi) [(P(S > u) / p)^xi - 1].
    """

    panels: Sequence[Samples]  # current, and baseline if there is one, where the tail is unbounded
    thresholds: Sequence[float]  # threshold of each panel's own fit
    forth: Map  # from the units of the scores to the unbounded scale
    back: Map  # and back

    def replicate(self, weights: Floats) -> Replicates:
        """Return levels or their differences under `weights`, NaN where the fit has no mean, [replicates]."""
        values = [
            self.back(_level(panel, threshold, weights))
            for panel, threshold in zip(self.panels, self.thresholds, strict=True)
        ]
        return Replicates(values[0] - values[1] if len(values) == 2 else values[0], None)

    def contradiction(self) -> str:
        """Return how a panel's own samples contradict its fit, or an empty string."""
        for panel, threshold in zip(self.panels, self.thresholds, strict=True):
            fitted = float(_level(panel, threshold, np.ones((panel.n_prompts, 1)))[0])
            low, high = order_statistic_interval(panel, 1 - 1 / EXCEEDED_ONCE_IN, AGREEMENT_LEVEL)
            if not low <= fitted <= high:
                fitted, low, high = (float(self.back(end)) for end in (fitted, low, high))
                return f"the fitted tail's {fitted:.4g} is not in the samples' own interval, {low:.4g} to {high:.4g}"
        return ""

    def interval(self, value: float, replicates: Replicates, level: float) -> tuple[float, float]:
        """Return the normal interval less the bootstrap's bias (Davison & Hinkley 1997, Bootstrap Methods, 5.2).

        For a level (not a change) it is taken on the logarithm of the distance to the threshold: far from the data its
        errors are skewed, and percentiles of the replicates then miss a truth above them four times as often.
        """
        found = replicates.values[np.isfinite(replicates.values)]
        if len(self.panels) == 2:
            return _less_bias(value, found, level)
        (threshold,) = self.thresholds
        distance, distances = (self.forth(one) - threshold for one in (value, found))
        if distance <= 0:
            return value, value
        low, high = _less_bias(float(np.log(distance)), np.log(distances[distances > 0]), level)
        return float(self.back(threshold + np.exp(low))), float(self.back(threshold + np.exp(high)))


def unbounded(panels: Sequence[Floats]) -> tuple[Map, Map]:
    """Return the maps to a scale without bounds and back: the logit for scores in [0, 1], else the identity.

    On [0, 1] itself a fit would find a negative shape, which says no more than that 1 is the largest score. Scores
    whose low end is the bad one arrive negated, in [-1, 0].
    """
    if all(np.nanmin(panel) >= 0 and np.nanmax(panel) <= 1 for panel in panels):
        return scipy.special.logit, scipy.special.expit
    if all(np.nanmin(panel) >= -1 and np.nanmax(panel) <= 0 for panel in panels):
        return lambda x: scipy.special.logit(x + 1), lambda y: scipy.special.expit(y) - 1
    return np.asarray, np.asarray


def fit_threshold(panel: Floats) -> float:
    """Return the 97% quantile, beyond which the tail is fitted, of a canonical panel."""
    return quantile(flatten(panel), THRESHOLD_LEVEL)


def obstacle(panel: Floats, threshold: float, to_line: Map) -> str:
    """Return why no tail can be fitted to a panel, or an empty string."""
    beyond = panel > threshold
    values, n_prompts = panel[beyond], int(beyond.any(axis=1).sum())
    if len(values) < MIN_SAMPLES or n_prompts < MIN_PROMPTS:
        return (
            f"{len(values)} samples of {n_prompts} prompts beyond the fit's threshold; at least {MIN_SAMPLES} of "
            f"{MIN_PROMPTS} are needed"
        )
    if len(np.unique(values)) < MIN_DISTINCT * len(values):
        return "scores in grades: no continuous tail to fit"
    return "" if np.isfinite(to_line(values)).all() else "scores at their bound: no tail to fit"


def _less_bias(value: float, replicates: Floats, level: float) -> tuple[float, float]:
    centre, reach = 2 * value - replicates.mean(), scipy.stats.norm.isf((1 - level) / 2) * replicates.std()
    return float(centre - reach), float(centre + reach)


def _level(samples: Samples, threshold: float, weights: Floats) -> Floats:
    end = int(np.searchsorted(-samples.values, -threshold, side="left"))
    # Ascending, as the moments weigh the j-th smallest excess by its share of smaller ones.
    order = slice(end - 1, None, -1) if end else slice(0, 0)
    masses = weights[samples.prompts[order]] * samples.masses[order, None]
    excess = (samples.values[order] - threshold)[:, None]
    below = np.cumsum(masses, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = below[-1]
        survival = 1 - (below - masses / 2) / total
        first = (masses * excess).sum(axis=0) / total
        second = (masses * excess * survival).sum(axis=0) / total
        shape = 2 - first / (first - 2 * second)
        scale = 2 * first * second / (first - 2 * second)
        stretch = np.log(total / samples.n_prompts * EXCEEDED_ONCE_IN)
        # expm1(x) / x is smooth through shape = 0, where the tail is exponential.
        return threshold + scale * stretch * scipy.special.exprel(shape * stretch)
