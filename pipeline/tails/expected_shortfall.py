"""CVaR (expected shortfall): the mean of the worst fraction of samples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tails.arrays import Floats, Samples
from pipeline.tails.quantiles import quantile, quantile_replicates
from pipeline.tails.resample import Replicates


class ShortfallChange(NamedTuple):
    """CVaR at `share` of a panel, or its change against a baseline panel of the same prompts.

    CVaR = q + E(S - q)_+ / share with q the (1 - share)-quantile (Rockafellar & Uryasev 2002, J. Bank.
    Finance 26:1443). Its influence function, per prompt, is mean_j (S_ij - q)_+ / share + q - CVaR: the
    quantile's own noise drops out to first order, because CVaR is the minimum over q of that expression.
    """

    current: Samples
    baseline: Samples | None
    share: float

    def point(self) -> tuple[float, float]:
        """Return the value and its influence-function standard error, with prompts as the unit."""
        result = self.replicate(np.ones((self.current.n_prompts, 1)))
        assert result.errors is not None
        return float(result.values[0]), float(result.errors[0])

    def freedom(self) -> int:
        """Return the degrees of freedom of the standard error: prompts beyond the quantile, less one."""
        sides = [self.current] if self.baseline is None else [self.current, self.baseline]
        tails = [side.fraction_above(quantile(side, 1 - self.share)) for side in sides]
        return max(min(int(np.count_nonzero(tail)) for tail in tails) - 1, 1)

    def replicate(self, weights: Floats) -> Replicates:
        """Return values and standard errors under `weights`, [n_prompts, replicates]."""
        n_prompts = self.current.n_prompts
        prompts, excess, levels = _tail(self.current, self.share, weights)
        if self.baseline is not None:
            others, baseline_excess, baseline_levels = _tail(self.baseline, self.share, weights)
            union = np.union1d(prompts, others)
            difference = np.zeros((len(union), weights.shape[1]))
            difference[np.searchsorted(union, prompts)] = excess
            difference[np.searchsorted(union, others)] -= baseline_excess
            prompts, excess, levels = union, difference, levels - baseline_levels
        weighted = weights[prompts] * excess
        means = weighted.sum(axis=0) / n_prompts
        squares = (weighted * excess).sum(axis=0) / n_prompts
        variances = np.maximum(squares - means**2, 0.0)
        return Replicates(levels + means / self.share, np.sqrt(variances / (n_prompts - 1)) / self.share)


def _tail(samples: Samples, share: float, weights: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return the prompts in the tail, their mean excess over each replicate's quantile, and the quantiles."""
    levels = quantile_replicates(samples, 1 - share, weights)
    end = int(np.searchsorted(-samples.values, -levels.min(), side="left"))
    order = np.argsort(samples.prompts[:end], kind="stable")
    prompts, starts = np.unique(samples.prompts[:end][order], return_index=True)
    excess = np.maximum(samples.values[:end][order][:, None] - levels, 0.0)
    excess *= samples.masses[:end][order][:, None]
    return prompts, np.add.reduceat(excess, starts, axis=0) if len(prompts) else excess, levels
