"""Wilson's interval for a share, or for the mean of numbers in [0, 1]."""

import numpy as np
import scipy


def wilson(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of Wilson (1927): all shares that the normal score test on n draws would not reject.

    For the mean of n independent numbers in [0, 1] it is conservative, since their variance is at most that of a
    binary variable with the same mean. NaN where nothing was drawn.

    Args:
        share: observed share, in [0, 1].
        n: number of draws.
        level: coverage of the interval.
    """
    if n == 0 or np.isnan(share):
        return np.nan, np.nan
    z = float(scipy.special.ndtri((1 + level) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(float(middle - reach), 0.0), min(float(middle + reach), 1.0)
