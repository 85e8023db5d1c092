"""The bulk-tail plane: how far the bulk moved, how far the tail moved, and with what joint uncertainty."""

from typing import NamedTuple

import numpy as np
import scipy

from pipeline.tails.arrays import Floats, Tail, canonical, flatten, orientation
from pipeline.tails.plans import CVAR_SHARE, MIN_TAIL_PROMPTS, few_tail_prompts
from pipeline.tails.quantiles import enough_for_quantile, quantile


class BulkTail(NamedTuple):
    """One point of the plane, in standard deviations of the baseline's scores; higher is worse on both axes.

    The bulk is the mean of samples that do not lie beyond the frozen threshold, the tail is CVaR at 1%. The
    covariance is that of their influence functions over prompts. Where the worst 1% come from too few prompts,
    only the bulk is known.
    """

    bulk: float  # NaN: not identified
    tail: float  # NaN: not identified
    covariance: Floats  # [2, 2]
    n_prompts: int
    p_bulk_better: float | None  # one-sided, against "the bulk did not get better"
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether there is a point."""
        return not np.isnan(self.tail)

    def ellipse(self, *, level: float = 0.90, points: int = 64) -> Floats:
        """Return the outline of the joint confidence region, [points, 2], by the normal approximation."""
        values, vectors = np.linalg.eigh(self.covariance)
        angles = np.linspace(0, 2 * np.pi, points)
        circle = np.stack([np.cos(angles), np.sin(angles)]) * np.sqrt(scipy.stats.chi2.ppf(level, 2))
        return np.array([self.bulk, self.tail]) + (vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)).T


def bulk_tail_point(before: Floats, after: Floats, threshold: float | None, *, tail: Tail) -> BulkTail:
    """Return the point of two rounds of the same prompts.

    Args:
        before: baseline scores, [n_prompts, k].
        after: current scores of the same prompts, [n_prompts, k'].
        threshold: frozen threshold in the units of the scores; None where not identified: every sample is then bulk.
        tail: the bad end of the scores.
    """
    sign = orientation(tail)
    (first, second), _ = canonical(sign * before, sign * after)
    limit = np.inf if threshold is None else sign * threshold
    unknown = BulkTail(float("nan"), float("nan"), np.full((2, 2), np.nan), len(first), None)
    if len(first) < MIN_TAIL_PROMPTS:
        return unknown._replace(why=f"{len(first)} prompts with samples on both sides")
    spread = float(np.nanstd(first))
    if spread == 0:
        return unknown._replace(why="the baseline's scores do not vary: there is no unit to measure in")
    parts = [(_bulk(side, limit), _shortfall(side)) for side in (first, second)]
    if any(part is None for part in parts[0] + parts[1]):
        return unknown._replace(why="too few samples in the bulk, or in the worst 1%")
    values = np.array([[part[0] for part in side if part is not None] for side in parts])
    influence = np.array([[part[1] for part in side if part is not None] for side in parts])
    bulk, worst = ((values[1] - values[0]) / spread).tolist()
    changes = (influence[1] - influence[0]) / spread
    covariance = np.cov(changes) / len(first)
    error = float(np.sqrt(covariance[0, 0]))
    p_better = float(scipy.stats.t.cdf(bulk / error, len(first) - 1)) if error > 0 else float(bulk >= 0)
    if why := next(filter(None, (few_tail_prompts(flatten(side)) for side in (first, second))), ""):
        return unknown._replace(bulk=bulk, p_bulk_better=p_better, why=why)
    return BulkTail(bulk, worst, covariance, len(first), p_better)


def _bulk(side: Floats, limit: float) -> tuple[float, Floats] | None:
    """Return the mean of samples up to a limit, prompts weighted equally, and its influence function per prompt."""
    inside = side <= limit
    counts = (~np.isnan(side)).sum(axis=1)
    shares = inside.sum(axis=1) / counts
    if not shares.any():
        return None
    sums = np.where(inside, side, 0.0).sum(axis=1) / counts
    value = float(sums.mean() / shares.mean())
    return value, (sums - value * shares) / shares.mean()


def _shortfall(side: Floats) -> tuple[float, Floats] | None:
    samples = flatten(side)
    if not enough_for_quantile(samples, 1 - CVAR_SHARE):
        return None
    level = quantile(samples, 1 - CVAR_SHARE)
    excess = np.nansum(np.maximum(side - level, 0.0), axis=1) / samples.counts / CVAR_SHARE
    value = level + float(excess.mean())
    return value, excess - excess.mean()
