"""How well a score tells two kinds of items apart: the area under the ROC curve."""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

from pipeline.errors import InputError

MIN_EACH = 5
_NEAR = 1e-9


class RocArea(NamedTuple):
    """An area with its interval; NaN where there are too few items of a kind, with the reason in `why`."""

    value: float
    low: float
    high: float
    n_positive: int
    n_negative: int
    why: str = ""


def roc_area(scores: ArrayLike, positive: ArrayLike, *, level: float = 0.95) -> RocArea:
    """Return the probability that an item of the positive kind has the higher score, ties counting half.

    The interval solves |area - theta| = z sqrt(V(theta)) for theta, with the variance of Hanley and McNeil (1982) and
    the correction for few items of Newcombe (2006, Statistics in Medicine 25:559, method 5). It stays within [0, 1]
    and has a width even where the kinds are separated without error. Items count as independent.

    Args:
        scores: scores of the items, [n_items].
        positive: true for items of the positive kind, [n_items].
        level: coverage of the interval.

    Raises:
        InputError: scores and kinds of different items, or a missing score.
    """
    values, kinds = np.asarray(scores, float), np.asarray(positive, bool)
    if values.shape != kinds.shape or values.ndim != 1 or np.isnan(values).any():
        raise InputError(
            f"expected a score and a kind for each item, got shapes {values.shape}, {kinds.shape}, or NaN"
        )
    m, n = int(kinds.sum()), int((~kinds).sum())
    if min(m, n) < MIN_EACH:
        return RocArea(np.nan, np.nan, np.nan, m, n, f"fewer than {MIN_EACH} items of a kind")
    ranks = scipy.stats.rankdata(values)
    area = float((ranks[kinds].sum() - m * (m + 1) / 2) / (m * n))
    z = float(scipy.special.ndtri((1 + level) / 2))
    each = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = (each * (1 - theta) / (2 - theta)) + each * theta / (1 + theta)
        return (area - theta) ** 2 - z * z * theta * (1 - theta) * (1 + spread) / (m * n)

    # Where the kinds are separated without error, an end of [0, 1] is itself a root.
    low = float(scipy.optimize.brentq(excess, 0, min(area, 1 - _NEAR))) if area > 0 else 0.0
    high = float(scipy.optimize.brentq(excess, max(area, _NEAR), 1)) if area < 1 else 1.0
    return RocArea(area, low, high, m, n)
