"""Quantities that are means over prompts: the mean, the mean excess, the expected worst of k samples."""

from math import comb
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from pipeline.tails.arrays import Floats
from pipeline.tails.resample import Replicates, studentised_interval

# With fewer prompts away from the common value, too many replicates draw none of them and have no spread to divide by.
MIN_DISTINCT_PROMPTS = 10


class PromptMean(NamedTuple):
    """The mean of one number per prompt (for a change: of the prompts' paired differences)."""

    numbers: Floats  # [m]
    rows: NDArray[np.intp] | None = None  # [m], which prompts they belong to; all of them, in order, if None

    def replicate(self, weights: Floats) -> Replicates:
        """Return means and cluster standard errors under `weights`, [n_prompts, replicates]."""
        weights = weights if self.rows is None else weights[self.rows]
        centre = self.numbers.mean()
        centred = self.numbers - centre
        # Weights of all prompts always sum to their number.
        totals = len(centred) if self.rows is None else np.maximum(weights.sum(axis=0), 1.0)
        moments = np.stack([centred, centred**2]) @ weights / totals
        variances = np.maximum(moments[1] - moments[0] ** 2, 0.0)
        return Replicates(centre + moments[0], np.sqrt(variances / np.maximum(totals - 1, 1.0)))

    def interval(self, replicates: Replicates, level: float) -> tuple[float, float, str]:
        """Return low, high, and what is special about them.

        The studentised bootstrap over prompts; Student's interval on the prompt means (Miller 2024,
        arXiv 2411.00640) where nearly all prompts have the same number.
        """
        n_prompts, value = len(self.numbers), float(self.numbers.mean())
        distinct = int((self.numbers != np.median(self.numbers)).sum())
        error = float(self.numbers.std(ddof=1)) / np.sqrt(n_prompts)
        if distinct == 0:
            return value, value, "all prompts have the same value: their spread is unknown"
        if distinct < MIN_DISTINCT_PROMPTS:
            reach = error * scipy.stats.t.ppf((1 + level) / 2, n_prompts - 1)
            why = f"only {distinct} of {n_prompts} prompts differ from the rest: Student's interval"
            return value - reach, value + reach, why
        return *studentised_interval(value, error, replicates, level), ""


def prompt_means(scores: Floats) -> Floats:
    """Return the mean of each prompt's samples, [n_prompts]."""
    return np.nanmean(scores, axis=1)


def mean_excess(scores: Floats, threshold: float) -> Floats:
    """Return each prompt's mean of (S - threshold)_+ over its samples, [n_prompts]; zero for samples below."""
    return np.nanmean(
        np.where(scores > threshold, scores - threshold, np.where(np.isnan(scores), np.nan, 0.0)), axis=1
    )


def worst_of(scores: Floats, k: int) -> Floats:
    """Return the expected maximum of k samples for each prompt, [n_prompts]; NaN for prompts with fewer.

    The U-statistic sum_j C(j-1, k-1) / C(m, k) S_(j) over a prompt's m ordered samples (as for pass@k: Chen
    et al. 2021, arXiv 2107.03374); at m = k it is the maximum.

    Args:
        scores: [n_prompts, columns], ascending in each row, NaN last.
        k: number of samples of which the worst is taken.
    """
    counts = (~np.isnan(scores)).sum(axis=1)
    worst = np.full(len(scores), np.nan)
    for count in np.unique(counts[counts >= k]).tolist():
        shares = np.array([comb(j, k - 1) / comb(count, k) for j in range(count)])
        rows = counts == count
        worst[rows] = scores[rows, :count] @ shares
    return worst
