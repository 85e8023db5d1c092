"""Every quantity of the drift table: of one panel, or its change between two panels of the same prompts."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats, Tail, as_scores, orientation
from pipeline.tails.estimates import Estimate
from pipeline.tails.plans import SIGNLESS, Pending, Settings, Sides, pair, plan
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
# Known by name but not part of the drift table by default.
OTHERS = ("mean_excess", "worst_exceedance", "tail_icc", "return_level_1000")
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
        quantity: one of QUANTITIES or OTHERS except exceedance_ratio, or another quantile by name, such as "q99.8".
        threshold: frozen threshold for "exceedance", "mean_excess", "worst_exceedance" and "tail_icc", in the
            units of the scores.
        tail: the bad end of the scores. With "lower", q99 is the value that 99% of samples lie above,
            cvar_1pct the mean of the lowest 1%, worst_of_k the expected minimum, exceedance the rate below
            the threshold.
        k: number of samples of which worst_of_k takes the worst; by default the largest number that any
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
    settings, sign = _oriented(settings)
    sides = pair(None if baseline is None else sign * baseline, sign * current, settings.k)
    results = _finish([plan(quantity, sides, settings) for quantity in quantities], sides, settings)
    return {name: _turned(name, one, settings) for name, one in zip(quantities, results, strict=True)}


def measure_both(
    baseline: Floats,
    current: Floats,
    parts: Sequence[tuple[Sequence[str], float | None]],
    settings: Settings,
) -> list[list[tuple[Estimate, Estimate, Estimate]]]:
    """Estimate quantities at the baseline, now, and their changes, all from one set of bootstrap weights.

    Args:
        baseline: baseline scores, [n_prompts, k].
        current: current scores of the same prompts, [n_prompts, k'].
        parts: groups of quantities by name, each with its threshold; the one in `settings` is not used.
        settings: how to measure, as for `measure`.

    Returns:
        For each part, for each of its quantities: baseline, current, change.
    """
    plans, names = [], []
    settings, sign = _oriented(settings)
    both = pair(sign * baseline, sign * current, settings.k)
    alone = both.each()
    for quantities, threshold in parts:
        _check(quantities, settings)
        here = settings._replace(threshold=None if threshold is None else sign * threshold)
        for quantity in quantities:
            names.append(quantity)
            plans += [plan(quantity, sides, here) for sides in (*alone, both)]
    results = [_turned(names[i // 3], one, settings) for i, one in enumerate(_finish(plans, both, settings))]
    triples = iter(zip(results[::3], results[1::3], results[2::3], strict=True))
    return [[next(triples) for _ in quantities] for quantities, _ in parts]


def _oriented(settings: Settings) -> tuple[Settings, float]:
    sign = orientation(settings.tail)
    threshold = None if settings.threshold is None else sign * settings.threshold
    return settings._replace(threshold=threshold), sign


def _finish(plans: Sequence[Estimate | Pending], sides: Sides, settings: Settings) -> list[Estimate]:
    """Bootstrap what is pending, all under the same weights."""
    replicates = iter(
        bootstrap(
            [one.statistic for one in plans if isinstance(one, Pending)],
            sides.current_samples.n_prompts,
            replicates=settings.replicates,
            seed=settings.seed,
        )
    )
    return [one.finish(next(replicates)) if isinstance(one, Pending) else one for one in plans]


def _turned(quantity: str, estimate: Estimate, settings: Settings) -> Estimate:
    """Return an estimate of the lower tail in the units of the scores."""
    return estimate.mirrored() if settings.tail == "lower" and quantity not in SIGNLESS else estimate


def _check(quantities: Sequence[str], settings: Settings) -> None:
    for quantity in quantities:
        match = _QUANTILE_NAME.fullmatch(quantity)
        if quantity not in QUANTITIES + OTHERS and not (match and float(match[1]) > 0):
            raise InputError(
                f"unknown quantity {quantity!r}; there are {', '.join(QUANTITIES + OTHERS)} and quantiles like q99.8"
            )
    if not 0 < settings.level < 1:
        raise InputError(f"level: expected a number between 0 and 1, got {settings.level}")
    if settings.replicates < 1 or (settings.k is not None and settings.k < 1):
        raise InputError(f"replicates and k: expected at least 1, got {settings.replicates} and {settings.k}")
    if settings.threshold is not None and np.isinf(settings.threshold):
        raise InputError("threshold: expected a finite number, got an infinite one")
