"""How far two readings of the same items agree: ratings (intraclass correlation) and verdicts (phi, kappa)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats

MIN_ITEMS = 10
REPLICATES = 1000


class Agreement(NamedTuple):
    """A coefficient with its interval, items being the unit; NaN where not identified, with the reason in `why`."""

    value: float
    low: float
    high: float
    n_items: int
    why: str = ""


def rating_agreement(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Agreement:
    """Return the one-way intraclass correlation of two ratings of each item (Shrout & Fleiss 1979, ICC(1,1)).

    (MSB - MSW) / (MSB + MSW): 1 where the ratings are equal, 0 where two ratings of one item are as far apart as
    those of two items. A shift of one of the readings counts as disagreement. Percentile bootstrap over items.

    Args:
        first: ratings, [n_items].
        second: ratings of the same items, [n_items].
        level: coverage of the interval.
        seed: random seed of the bootstrap.

    Raises:
        InputError: readings of different items, or missing values.
    """
    one, other = _readings(first, second)
    n = len(one)
    value = float(_icc(one[None], other[None])[0]) if n >= MIN_ITEMS else np.nan
    if np.isnan(value):
        return _unidentified(n, "the ratings do not vary")
    drawn = np.random.default_rng(seed).integers(0, n, (REPLICATES, n))
    return _agreement(value, _icc(one[drawn], other[drawn]), n, level)


def phi(
    first: ArrayLike, second: ArrayLike, *, groups: Sequence[str] | None = None, level: float = 0.95, seed: int = 0
) -> Agreement:
    """Return the correlation of two verdicts, 0 or 1, on the same items.

    The interval is the central part of the posterior under Jeffreys' prior on the table of the four outcomes
    (Dirichlet, half a count each): a bootstrap would leave an empty cell empty. Where items come in ``groups``, such
    as the samples of a prompt, each group has one random weight (Rubin 1981, the Bayesian bootstrap); with groups of
    one item that is the same. Other arguments as for `rating_agreement`.
    """
    return _of_verdicts(_phi, first, second, "one of the two verdicts is always the same", groups, level, seed)


def kappa(
    first: ArrayLike, second: ArrayLike, *, groups: Sequence[str] | None = None, level: float = 0.95, seed: int = 0
) -> Agreement:
    """Return Cohen's (1960) kappa of two verdicts, 0 or 1: agreement beyond chance. Interval as for `phi`."""
    return _of_verdicts(_kappa, first, second, "both verdicts are always the same", groups, level, seed)


def _of_verdicts(
    statistic: Callable[[Floats], Floats],
    first: ArrayLike,
    second: ArrayLike,
    constant: str,
    groups: Sequence[str] | None,
    level: float,
    seed: int,
) -> Agreement:
    one, other = _readings(first, second)
    n = len(one)
    cells = np.array([(one == a) & (other == b) for a in (0, 1) for b in (0, 1)], float).T
    if cells.sum() != n:
        raise InputError("verdicts: expected 0 or 1 for every item")
    value = float(statistic(cells.sum(axis=0, keepdims=True) / max(n, 1))[0]) if n >= MIN_ITEMS else np.nan
    if np.isnan(value):
        return _unidentified(n, constant)
    rng = np.random.default_rng(seed)
    if groups is None:
        drawn = rng.dirichlet(cells.sum(axis=0) + 0.5, REPLICATES)
    else:
        names, place = np.unique(groups, return_inverse=True)
        tables = np.stack([np.bincount(place, cell, len(names)) for cell in cells.T], axis=1)
        drawn = rng.standard_gamma(1.0, (REPLICATES, len(names))) @ tables
        drawn += rng.standard_gamma(0.5, drawn.shape)
        drawn /= drawn.sum(axis=1, keepdims=True)
    return _agreement(value, statistic(drawn), n, level)


def _readings(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    one, other = np.asarray(first, float), np.asarray(second, float)
    if one.shape != other.shape or one.ndim != 1 or np.isnan(one).any() or np.isnan(other).any():
        raise InputError(f"expected two readings of the same items, got shapes {one.shape} and {other.shape}, or NaN")
    return one, other


def _unidentified(n: int, constant: str) -> Agreement:
    return Agreement(np.nan, np.nan, np.nan, n, constant if n >= MIN_ITEMS else f"fewer than {MIN_ITEMS} items")


def _agreement(value: float, replicates: Floats, n: int, level: float) -> Agreement:
    tail = (1 - level) / 2
    low, high = np.quantile(replicates[~np.isnan(replicates)], [tail, 1 - tail])
    return Agreement(value, min(float(low), value), max(float(high), value), n)


def _icc(first: Floats, second: Floats) -> Floats:
    """Intraclass correlations of rows, [rows]; NaN where nothing varies."""
    means = (first + second) / 2
    between = 2 * means.var(axis=1, ddof=1)
    within = ((first - second) ** 2).mean(axis=1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(between + within > 0, (between - within) / (between + within), np.nan)


def _phi(shares: Floats) -> Floats:
    """Phi of tables [tables, 4]: the shares of (0, 0), (0, 1), (1, 0) and (1, 1)."""
    neither, second, first, both = shares.T
    one, other = first + both, second + both
    spread = np.sqrt(one * (1 - one) * other * (1 - other))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12, (both * neither - first * second) / spread, np.nan)


def _kappa(shares: Floats) -> Floats:
    neither, second, first, both = shares.T
    one, other = first + both, second + both
    by_chance = one * other + (1 - one) * (1 - other)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(by_chance < 1 - 1e-12, (both + neither - by_chance) / (1 - by_chance), np.nan)
