"""How far two readings of the same items agree: ratings (intraclass correlation) and verdicts (phi, kappa)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats

MIN_ITEMS = 10
REPLICATES = 1000


class Agreement(NamedTuple):
    """A coefficient with its percentile bootstrap interval over items; NaN where not identified, which `why` tells."""

    value: float
    low: float
    high: float
    n_items: int
    why: str = ""


def rating_agreement(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Agreement:
    """Return the one-way intraclass correlation of two ratings of each item (Shrout & Fleiss 1979, ICC(1,1)).

    (MSB - MSW) / (MSB + MSW): 1 where the ratings are equal, 0 where two ratings of one item are as far apart as
    those of two items. A shift of one of the two readings counts as disagreement.

    Args:
        first: ratings, [n_items].
        second: of the same items, [n_items].
        level: coverage of the interval.
        seed: of the bootstrap.
    """
    return _agreement(_icc, first, second, "the ratings do not vary", level, seed)


def phi(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Agreement:
    """Return the correlation of two verdicts, 0 or 1, on the same items; arguments as for `rating_agreement`."""
    return _agreement(_phi, first, second, "one of the two verdicts is always the same", level, seed)


def kappa(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Agreement:
    """Return Cohen's (1960) kappa of two verdicts, 0 or 1: agreement beyond chance; arguments as for `phi`."""
    return _agreement(_kappa, first, second, "both verdicts are always the same", level, seed)


def _agreement(
    statistic: Callable[[Floats, Floats], Floats],
    first: ArrayLike,
    second: ArrayLike,
    constant: str,
    level: float,
    seed: int,
) -> Agreement:
    one, other = np.asarray(first, float), np.asarray(second, float)
    if one.shape != other.shape or one.ndim != 1 or np.isnan(one).any() or np.isnan(other).any():
        raise InputError(f"expected two readings of the same items, got shapes {one.shape} and {other.shape}, or NaN")
    n = len(one)
    if n < MIN_ITEMS:
        return Agreement(np.nan, np.nan, np.nan, n, f"fewer than {MIN_ITEMS} items")
    value = float(statistic(one[None], other[None])[0])
    if np.isnan(value):
        return Agreement(np.nan, np.nan, np.nan, n, constant)
    drawn: NDArray[np.intp] = np.random.default_rng(seed).integers(0, n, (REPLICATES, n))
    replicates = statistic(one[drawn], other[drawn])
    known = replicates[~np.isnan(replicates)]
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Agreement(value, min(float(low), value), max(float(high), value), n)


def _icc(first: Floats, second: Floats) -> Floats:
    """Intraclass correlations of rows, [rows]; NaN where nothing varies."""
    means = (first + second) / 2
    between = 2 * means.var(axis=1, ddof=1)
    within = ((first - second) ** 2).mean(axis=1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between + within > 0, (between - within) / (between + within), np.nan)


def _phi(first: Floats, second: Floats) -> Floats:
    one, other = first.mean(axis=1), second.mean(axis=1)
    spread = np.sqrt(one * (1 - one) * other * (1 - other))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, ((first * second).mean(axis=1) - one * other) / spread, np.nan)


def _kappa(first: Floats, second: Floats) -> Floats:
    one, other = first.mean(axis=1), second.mean(axis=1)
    by_chance = one * other + (1 - one) * (1 - other)
    observed = (first == second).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by_chance < 1, (observed - by_chance) / (1 - by_chance), np.nan)
