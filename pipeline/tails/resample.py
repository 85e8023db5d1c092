"""The bootstrap over prompts: one set of weights for all statistics of a panel, and intervals from it.

Prompts are the independent draws, samples of one prompt are not: resampling samples gives intervals that
cover far less than they claim (Davison & Hinkley 1997, Bootstrap Methods and their Application, 3.8; Cameron,
Gelbach & Miller 2008, Rev. Econ. Stat. 90:414).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from pipeline.tails.arrays import Floats

# Elements of one block of weights: large enough for the products, small enough for the cache.
BLOCK_ELEMENTS = 1 << 17
# Narrower blocks waste the cache lines that gathering rows of weights brings in.
MIN_WIDTH = 16
# The scores of a round share their prompts, and drawing weights takes as long as using them: four sets of up to 32 MiB
# each are kept.
REMEMBERED_ELEMENTS = 1 << 24

Counts = NDArray[np.uint16]  # how often each prompt is drawn, always far below 65,535


class Replicates(NamedTuple):
    """Bootstrap replicates of one statistic; `errors` only where it is studentised."""

    values: Floats  # [replicates]
    errors: Floats | None  # [replicates], the standard error of each replicate


class Statistic(Protocol):
    """Something that can be computed again under new prompt weights."""

    def replicate(self, weights: Floats) -> Replicates:
        """Return the statistic under each column of `weights`, [n_prompts, replicates]."""
        ...


def prompt_weights(n_prompts: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Yield multinomial bootstrap weights in blocks [n_prompts, b]; every column sums to n_prompts."""
    blocks = _drawn(n_prompts, replicates, seed) if n_prompts * replicates <= REMEMBERED_ELEMENTS else None
    for counts in blocks or _draw(n_prompts, replicates, seed):
        yield counts.astype(float)


@lru_cache(maxsize=4)
def _drawn(n_prompts: int, replicates: int, seed: int) -> tuple[Counts, ...]:
    return tuple(_draw(n_prompts, replicates, seed))


def _draw(n_prompts: int, replicates: int, seed: int) -> Iterator[Counts]:
    rng = np.random.default_rng(seed)
    width = max(MIN_WIDTH, BLOCK_ELEMENTS // n_prompts)
    for start in range(0, replicates, width):
        counts = np.empty((n_prompts, min(width, replicates - start)), dtype=np.uint16)
        drawn = rng.integers(0, n_prompts, size=counts.T.shape)
        for column, prompts in zip(counts.T, drawn, strict=True):
            column[:] = np.bincount(prompts, minlength=n_prompts)
        yield counts


def bootstrap(statistics: Sequence[Statistic], n_prompts: int, *, replicates: int, seed: int) -> list[Replicates]:
    """Compute every statistic under the same bootstrap weights."""
    blocks: list[list[Replicates]] = [[] for _ in statistics]
    if statistics:
        for weights in prompt_weights(n_prompts, replicates, seed):
            for parts, statistic in zip(blocks, statistics, strict=True):
                parts.append(statistic.replicate(weights))
    return [_joined(parts) for parts in blocks]


def _joined(parts: list[Replicates]) -> Replicates:
    errors = [part.errors for part in parts if part.errors is not None]
    return Replicates(np.concatenate([part.values for part in parts]), np.concatenate(errors) if errors else None)


def percentile_interval(replicates: Replicates, level: float) -> tuple[float, float]:
    """Return the percentile interval (Efron 1979), ends rounded outwards to replicates."""
    tail = (1 - level) / 2
    low = np.quantile(replicates.values, tail, method="lower")
    high = np.quantile(replicates.values, 1 - tail, method="higher")
    return float(low), float(high)


def studentised_interval(
    value: float, error: float, replicates: Replicates, level: float, *, freedom: int | None = None
) -> tuple[float, float]:
    """Return the bootstrap-t interval (Hall 1988, Ann. Stat. 16:927; with clusters: Cameron et al. 2008).

    A replicate whose standard error vanishes away from `value` counts as an infinite t: where such replicates
    reach the wanted level, that end of the interval is not bounded by the sample.

    Args:
        value: the estimate.
        error: its standard error.
        replicates: its bootstrap replicates, with standard errors.
        level: coverage of the interval.
        freedom: degrees of freedom of `error` where few prompts carry it: the interval is stretched by the
            ratio of Student's quantile to the normal one (the number of clusters that hold the domain, less
            one: Korn & Graubard 1999, Analysis of Health Surveys, 5.2).
    """
    assert replicates.errors is not None
    distance = replicates.values - value
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.where(distance == 0, 0.0, distance / replicates.errors)
    tail = (1 - level) / 2
    if freedom is not None:
        error *= scipy.stats.t.ppf(1 - tail, freedom) / scipy.stats.norm.ppf(1 - tail)
    high = value - error * np.quantile(pivots, tail, method="lower")
    low = value - error * np.quantile(pivots, 1 - tail, method="higher")
    return float(low), float(high)
