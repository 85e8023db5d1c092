"""How likely is the worst of n queries to elicit the behaviour, from the log-probabilities of a few?"""

import math
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats

# Number of largest scores in the fit. More would include scores that are not yet the tail: intervals then cover far
# too little.
TOP = 10
MIN_QUERIES = 50


class Forecast(NamedTuple):
    """The elicitation probability of the worst of `n_queries` queries, on the log10 scale.

    `log10_probability` and its interval are the exponential-tail fit by maximum likelihood; `least_squares` is the
    published fit. NaN: not identified, with the reason in `why`. The interval holds for the distribution that the
    queries come from and for the behaviour as the measured answers word it: it does not cover a rare mode that none of
    the m queries hits, or another wording.
    """

    log10_probability: float
    low: float
    high: float
    least_squares: float
    n_queries: int
    n_measured: int
    level: float
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether there is a forecast."""
        return not math.isnan(self.log10_probability)


def forecast(log_probabilities: ArrayLike, n: int, *, level: float = 0.95) -> Forecast:
    """Forecast the largest elicitation probability among n queries from those of m of the same distribution.

    The scores psi = -log(-log p) have a Gumbel-like, on this scale exponential, tail (Jones, Tong et al. 2025,
    arXiv 2502.16797). By maximum likelihood over the ten largest: sigma = mean(psi_(1..10) - psi_(11)),
    Q(n) = psi_(11) + sigma log(10 n / m), with 20 sigma_hat / sigma ~ chi2_20 for the interval (Renyi's
    representation of spacings; psi_(11) itself is taken as known). By least squares, as published: a line through the
    log of the empirical survival of the ten largest. Forecasts run high for smooth populations and low where the worst
    mode is not among the m queries (Schwarzer & Niekum 2026, arXiv 2605.15134).

    Args:
        log_probabilities: natural log-probabilities of one behaviour, one per query, [m]; NaN is left out.
        n: number of queries to forecast for, more than m.
        level: coverage of the interval.

    Raises:
        InputError: not numbers, not one-dimensional, positive log-probabilities, or n below 1.
    """
    logs = _log_probabilities(log_probabilities)
    if n < 1 or not 0 < level < 1:
        raise InputError(f"n and level: expected at least one query and a level between 0 and 1, got {n} and {level}")
    m = len(logs)
    nan = float("nan")
    why = _refusal(logs, n)
    if why:
        return Forecast(nan, nan, nan, nan, n, m, level, why)
    psi = -np.log(-logs[: TOP + 1])
    spread = float((psi[:TOP] - psi[TOP]).mean())
    reach = math.log(TOP * n / m)
    tail = (1 - level) / 2
    low, high = (2 * TOP * spread / scipy.stats.chi2.ppf([1 - tail, tail], 2 * TOP)).tolist()
    slope, intercept = np.polyfit(psi[:TOP], np.log(np.arange(1, TOP + 1) / m), 1)
    published = -(math.log(n) + intercept) / slope
    quantiles = [psi[TOP] + sigma * reach for sigma in (spread, low, high)] + [published]
    value, low, high, published = (-np.exp(-np.array(quantiles)) / math.log(10)).tolist()
    return Forecast(value, low, high, published, n, m, level)


def _log_probabilities(log_probabilities: ArrayLike) -> Floats:
    """Return the numbers in descending order."""
    try:
        logs = np.asarray(log_probabilities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"log_probabilities: expected numbers [m] ({error})") from error
    if logs.ndim != 1:
        raise InputError(f"log_probabilities: expected a one-dimensional array [m], got shape {logs.shape}")
    if (logs > 0).any():
        raise InputError(
            f"log_probabilities: {float(np.nanmax(logs)):.4g} is positive; give natural logarithms of probabilities"
        )
    return np.sort(logs[~np.isnan(logs)])[::-1]


def _refusal(logs: Floats, n: int) -> str:
    """Return why no forecast can be made, or an empty string."""
    m = len(logs)
    if m < MIN_QUERIES:
        return f"{m} queries; at least {MIN_QUERIES} are needed"
    if n <= m:
        return f"{m} queries were measured: the worst of {n} is a matter of counting, not of a forecast"
    top = logs[: TOP + 1]
    if top[0] == 0:
        return "a query elicits the behaviour for certain: the worst case is known"
    if np.isneginf(top[TOP]):
        return f"fewer than {TOP + 1} queries have a probability above zero: measure log-probabilities, or sample more"
    if len(np.unique(top)) < len(top):
        return f"ties among the {TOP + 1} largest: probabilities counted from too few samples cannot feed a forecast"
    return ""
