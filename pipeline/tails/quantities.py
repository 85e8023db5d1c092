"""Every quantity of the drift table: of one panel, or its change between two panels of the same prompts."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats, Tail, as_scores, orientation
from pipeline.tails.estimates import Estimate
from pipeline.tails.plans import RATES, Pending, Settings, pair, plan
from pipeline.tails.resample import bootstrap

QUANTITIES = (
    "mean",
    "q50",
    "q90",
    "q99",
    "cvar_1pct",
    "worst_of_k",
    "exceedance",
    "exceedance_ratio",
)
REPLICATES = 1000

_QUANTILE_NAME = re.compile(r"q(\d{1,2}(?:\.\d+)?)")


def estimate(
    scores: ArrayLike,
    quantity: str,
    *,
    threshold: float | None = None,
    tail: Tail = "upper",
    k: int | None = None,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Estimate one quantity of one panel.

    Args:
        scores: [n_prompts, k], higher is worse (with tail="lower": lower is worse), NaN for missing samples.
        quantity: one of QUANTITIES but for exceedance_ratio, or another quantile by name, such as "q99.8".
        threshold: frozen threshold for "exceedance", in the units of the scores.
        tail: which end is the bad one. With "lower", q99 is the value that 99% of samples lie above,
            cvar_1pct the mean of the lowest 1%, worst_of_k the expected minimum, exceedance the rate below
            the threshold.
        k: the number of samples of which worst_of_k takes the worst; by default the largest number that a
            prompt has. Prompts with fewer are left out of it.
        level: coverage of the interval.
        replicates: number of bootstrap replicates.
        seed: seed of the bootstrap; the order of rows and columns does not matter.

    Raises:
        InputError: unknown quantity, or scores or settings out of range.
    """
    settings = Settings(threshold, tail, k, level, replicates, seed)
    return measure(None, as_scores(scores), [quantity], settings)[quantity]


def change(
    baseline: ArrayLike,
    current: ArrayLike,
    quantity: str,
    *,
    threshold: float | None = None,
    tail: Tail = "upper",
    k: int | None = None,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Estimate how one quantity changed between two panels of the same prompts.

    Arguments are those of `estimate`; row i of both arrays is the same prompt. Prompts without a sample on
    one of the sides are left out and counted. The result is current - baseline, except for exceedance_ratio,
    which is the ratio of the two rates (no change: 1).
    """
    settings = Settings(threshold, tail, k, level, replicates, seed)
    sides = as_scores(baseline, "baseline"), as_scores(current, "current")
    return measure(*sides, [quantity], settings)[quantity]


def measure(
    baseline: Floats | None, current: Floats, quantities: Sequence[str], settings: Settings
) -> dict[str, Estimate]:
    """Estimate several quantities, or their changes against `baseline`, from one set of bootstrap weights."""
    _check(quantities, settings)
    sign = orientation(settings.tail)
    if settings.threshold is not None:
        settings = settings._replace(threshold=sign * settings.threshold)
    sides = pair(None if baseline is None else sign * baseline, sign * current, settings.k)
    plans = {quantity: plan(quantity, sides, settings) for quantity in quantities}
    pending = [one for one in plans.values() if isinstance(one, Pending)]
    replicates = iter(
        bootstrap(
            [one.statistic for one in pending],
            sides.current_samples.n_prompts,
            replicates=settings.replicates,
            seed=settings.seed,
        )
    )
    results = {
        quantity: one.finish(next(replicates)) if isinstance(one, Pending) else one for quantity, one in plans.items()
    }
    if settings.tail == "lower":
        return {name: one if name in RATES else one.mirrored() for name, one in results.items()}
    return results


def _check(quantities: Sequence[str], settings: Settings) -> None:
    for quantity in quantities:
        match = _QUANTILE_NAME.fullmatch(quantity)
        if quantity not in QUANTITIES and not (match and float(match[1]) > 0):
            raise InputError(f"unknown quantity {quantity!r}; there are {', '.join(QUANTITIES)} and others like q99.8")
    if not 0 < settings.level < 1:
        raise InputError(f"level: expected a number between 0 and 1, got {settings.level}")
    if settings.replicates < 1 or (settings.k is not None and settings.k < 1):
        raise InputError(f"replicates and k: expected at least 1, got {settings.replicates} and {settings.k}")
    if settings.threshold is not None and np.isinf(settings.threshold):
        raise InputError("threshold: expected a finite number, got an infinite one")
