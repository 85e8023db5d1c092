"""How common something is, from a detector with known error rates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy


class Counted(NamedTuple):
    """``hits`` of ``n`` labelled cases that the detector got right."""

    hits: int
    n: int


class Prevalence(NamedTuple):
    """A share corrected for the detector's errors.

    Attributes:
        detected: the share that the detector reports.
        value: the corrected share, in [0, 1].
        low: lower end of the interval.
        high: upper end of the interval.
    """

    detected: float
    value: float
    low: float
    high: float


def prevalence(detected: np.ndarray, sensitivity: Counted, specificity: Counted, *, level: float = 0.95) -> Prevalence:
    """Rogan and Gladen's estimate with the interval of Lang and Reiczigel.

    (q + Sp - 1) / (Se + Sp - 1), where q is the detected share. The interval includes the noise of q, Se and Sp. It
    assumes that the detector errs here as often as on the labelled cases.

    Args:
        detected: flags, 1, 0 or NaN (no answer), [n_prompts, k]; samples of a prompt are alike, so the noise of q is
            estimated between prompts.
        sensitivity: labelled cases that have the property, and how many of them were detected.
        specificity: labelled cases that do not have it, and how many of them were not detected.
        level: coverage of the interval.

    Raises:
        ValueError: no flags, no labelled cases of a kind, or a detector no better than chance.

    Source: Rogan & Gladen 1978, American Journal of Epidemiology 107; Lang & Reiczigel 2014, Preventive Veterinary
    Medicine 113.
    """
    flags = detected[~np.isnan(detected).all(axis=1)]
    if not len(flags) or not sensitivity.n or not specificity.n:
        raise ValueError("prevalence needs the detector's flags, and labelled cases of both kinds")
    se, sp = (one.hits / one.n for one in (sensitivity, specificity))
    if se + sp <= 1:
        raise ValueError("the detector is no better than chance on the labelled cases")
    means = np.nanmean(flags, axis=1)
    q = float(means.mean())
    n = _effective(means, q)
    z = float(scipy.stats.norm.ppf((1 + level) / 2))

    q_, n_ = (n * q + z * z / 2) / (n + z * z), n + z * z
    se_, n_se = (sensitivity.hits + 1) / (sensitivity.n + 2), sensitivity.n + 2
    sp_, n_sp = (specificity.hits + 1) / (specificity.n + 2), specificity.n + 2
    j = se_ + sp_ - 1
    p_ = (q_ + sp_ - 1) / j
    noise_se, noise_sp = se_ * (1 - se_) / n_se, sp_ * (1 - sp_) / n_sp
    error = np.sqrt(q_ * (1 - q_) / n_ + p_**2 * noise_se + (1 - p_) ** 2 * noise_sp) / j
    middle = p_ + 2 * z * z * (p_ * noise_se - (1 - p_) * noise_sp)
    low, value, high = np.clip([middle - z * error, (q + sp - 1) / (se + sp - 1), middle + z * error], 0, 1)
    return Prevalence(q, float(value), float(low), float(high))


def _effective(means: np.ndarray, q: float) -> float:
    """How many independent samples would give a share as noisy as this one."""
    n = len(means)
    noise = float(means.var(ddof=1)) / n if n > 1 else 0.0
    return q * (1 - q) / noise if noise else float(n)
