"""Whether stated probabilities mean what they say: reliability by bins, calibration errors, and their uncertainty."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats
from pipeline.tails.proportions import wilson

BINS = 10
MIN_PER_BIN = 10
MIN_ITEMS = 2 * MIN_PER_BIN
REPLICATES = 4000


class Bin(NamedTuple):
    """Items of similar confidence: means, and Wilson's interval of the accuracy."""

    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


class Calibration(NamedTuple):
    """Calibration errors of a set of items, in units of probability; NaN where not identified, see ``why``.

    Attributes:
        n: number of items.
        confidence: mean confidence.
        accuracy: mean accuracy.
        bins: the bins, from the least to the most confident.
        ece: expected calibration error, sum over bins of n_b / n * |g_b|, with g_b the mean of confidence - accuracy.
        ece_if_calibrated: mean ``ece`` under perfect calibration with the same confidences: what chance alone gives.
        p_calibrated: p-value of perfect calibration: how often a perfectly calibrated model would show a sum of
            squared gaps this large.
        error: root mean squared gap, sqrt(max(0, sum over bins of n_b / n * (g_b^2 - s_b^2 / n_b))), without the bias
            that makes ``ece`` positive by chance; s_b^2 is the variance of confidence - accuracy in the bin.
        low: lower end of the interval of ``error``.
        high: upper end of the interval of ``error``.
        why: reason it is not identified, else "".
    """

    n: int
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]
    ece: float
    ece_if_calibrated: float
    p_calibrated: float
    error: float
    low: float
    high: float
    why: str = ""


def calibration(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS, level: float = 0.95, seed: int = 0
) -> Calibration:
    """Compare confidences with how often answers were right, in bins of equal counts (fewer than 10 below 100 items).

    ``error`` is the debiased estimator of Kumar, Liang & Ma (2019, arXiv 1909.10155), with the confidences of a bin as
    they are instead of rounded to one value. Binned errors are lower bounds: over- and underconfidence within a bin
    cancel.

    A bootstrap would centre on an error that is too large, and its coverage would be worst where a model is
    calibrated. So the p-value is that of consistency resampling (Broecker & Smith 2007, Weather and Forecasting
    22:651): answers are redrawn, each right with probability equal to its confidence. The interval of ``error`` holds
    those sizes c of the gaps under which the observed sum of squares is not among the most extreme, taking gaps
    c * g_b with normal noise of variance s_b^2 / n_b. In simulations (40 to 817 items, calibrated and not) it covered
    92% to 100%, most where a model is calibrated.

    Args:
        confidence: probability given to the answer that was chosen, [n_items], in [0, 1].
        correct: 1 where it was right, 0 where not, 0.5 for a tie, [n_items].
        bins: largest number of bins.
        level: coverage of the interval.
        seed: random seed of the resampling.

    Raises:
        InputError: confidences and answers that differ in number or are out of range.
    """
    p, right = np.asarray(confidence, float), np.asarray(correct, float)
    if p.shape != right.shape or p.ndim != 1 or not all(((one >= 0) & (one <= 1)).all() for one in (p, right)):
        raise InputError(
            f"expected one confidence and one answer per item, in [0, 1]; got shapes {p.shape}, {right.shape}"
        )
    n = len(p)
    if n < MIN_ITEMS:
        nan = float("nan")
        return Calibration(n, nan, nan, (), nan, nan, nan, nan, nan, nan, f"fewer than {MIN_ITEMS} items")
    of = _bins(p, min(bins, n // MIN_PER_BIN))
    counts = np.bincount(of).astype(float)
    weights = counts / n
    gaps = _means(p - right, of, counts)
    variances = _means((p - right - gaps[of]) ** 2, of, counts) / np.maximum(counts - 1, 1)
    rng = np.random.default_rng(seed)
    drawn = np.array([_means(p - (rng.random(n) < p), of, counts) for _ in range(REPLICATES // 4)])
    squares = float(weights @ gaps**2)
    error = np.sqrt(max(squares - float(weights @ variances), 0.0))
    # Ten right answers out of ten have no variance, yet say little about the true rate: add one right and one wrong.
    share = (_means(right, of, counts) * counts + 1) / (counts + 2)
    noise = np.sqrt(np.maximum(variances, share * (1 - share) / counts))
    low, high = _interval(gaps, noise, weights, level, rng)
    rows = zip(counts.astype(int).tolist(), _means(p, of, counts), _means(right, of, counts), strict=True)
    return Calibration(
        n,
        float(p.mean()),
        float(right.mean()),
        tuple(Bin(k, float(mean), float(share), *wilson(float(share), k, level=level)) for k, mean, share in rows),
        float(weights @ np.abs(gaps)),
        float((np.abs(drawn) @ weights).mean()),
        float((1 + np.sum(drawn**2 @ weights >= squares)) / (1 + len(drawn))),
        float(error),
        min(low, float(error)),
        max(high, float(error)),
    )


def _bins(p: Floats, wanted: int) -> NDArray[np.intp]:
    """Bin of every item, numbered from 0 without gaps; equal confidences share a bin."""
    edges = np.unique(np.quantile(p, np.arange(1, wanted) / wanted))
    return np.unique(np.searchsorted(edges, p, side="left"), return_inverse=True)[1]


def _means(values: Floats, of: NDArray[np.intp], counts: Floats) -> Floats:
    return np.bincount(of, values) / counts


def _interval(
    gaps: Floats, errors: Floats, weights: Floats, level: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Ends of the root mean squared gap's interval, by inverting the test of its size along the observed gaps."""
    noise = rng.standard_normal((REPLICATES, len(gaps))) * errors
    length = np.sqrt(float(weights @ gaps**2))
    direction = gaps / length if length > 0 else np.ones(len(gaps))

    def share_below(square: float, size: float) -> float:
        return float(np.mean((size * direction + noise) ** 2 @ weights <= square))

    tail = (1 - level) / 2
    # Gaps smaller than chance alone makes them would exclude every size: claim no more than n items can tell.
    least = float(np.median(noise**2 @ weights))
    reach = length + 10 * float(np.sqrt(weights @ errors**2))
    return (
        _falls_to(1 - tail, lambda size: share_below(length**2, size), reach),
        _falls_to(tail, lambda size: share_below(max(length**2, least), size), reach),
    )


def _falls_to(level: float, share: Callable[[float], float], reach: float) -> float:
    """Where a share that decreases with size crosses a level, between 0 and ``reach``."""
    low, high = 0.0, reach
    if share(low) <= level:
        return low
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > level else (low, middle)
    return high
