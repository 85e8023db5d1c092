"""Tests of "the tail did not get worse" that exchange the two rounds within prompts.

If a prompt's two rounds are exchangeable the tests are exact; if only the tail is unchanged on average they
hold asymptotically, because the statistics are studentised (Chung & Romano 2013, Ann. Stat. 41:484;
Konietschke & Pauly 2014, Stat. Comput. 24:283). Thresholds must come from other prompts, or the panel's round
0 is fixed by construction.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats, Tail, as_scores, canonical, orientation
from pipeline.tails.quantiles import frozen_threshold

# From this many calibration samples on, 1 in 500 is far enough from the last sample to be a threshold.
MANY_SAMPLES = 4000
FLIPS = 4999
BLOCK_ELEMENTS = 1 << 20


class SwapTest(NamedTuple):
    """The result of a one-sided test against "the tail did not get worse"."""

    p_value: float  # NaN: not identified
    column: str  # the per-prompt difference that spoke loudest, such as "exceedance 3.2"
    slice_id: int | None  # the slice in which it did
    n_prompts: int
    prompts_moved: int  # prompts whose tail differs between the rounds; no others carry information
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether any prompt carries information at all."""
        return not np.isnan(self.p_value)


def tail_thresholds(calibration: ArrayLike, *, tail: Tail = "upper") -> tuple[float, ...]:
    """Return the frozen thresholds for the tests: q99 and q99.8 of round 0, or q97.5 and q99 of a small
    panel.

    Args:
        calibration: round-0 scores [n_prompts, k] of prompts outside the panel.
        tail: which end is the bad one.
    """
    scores = as_scores(calibration, "calibration")
    levels = (0.99, 0.998) if np.count_nonzero(~np.isnan(scores)) >= MANY_SAMPLES else (0.975, 0.99)
    return tuple(frozen_threshold(scores, q, tail=tail) for q in levels)


def tail_max(
    baseline: ArrayLike,
    current: ArrayLike,
    thresholds: Sequence[float],
    *,
    tail: Tail = "upper",
    flips: int = FLIPS,
    seed: int = 0,
) -> SwapTest:
    """Test whether the tail got worse anywhere: the largest of several t statistics, with their joint law.

    The columns are each prompt's change in the fraction of samples beyond each threshold and in the mean
    excess over it. Each has a t statistic corrected for skewness (Hall 1992, JRSS-B 54:221); the largest is
    compared with those of rounds exchanged at random within prompts (max-T: Westfall & Young 1993).

    Args:
        baseline: round 0's scores [n_prompts, k].
        current: the scores of the same prompts now.
        thresholds: frozen thresholds, in the units of the scores.
        tail: which end is the bad one.
        flips: number of random exchanges; p-values are at least 1 / (flips + 1).
        seed: seed of the exchanges.

    Raises:
        InputError: arrays of different prompts, of wrong shape, with infinite values, or no thresholds.
    """
    columns, _ = _differences(baseline, current, None, thresholds, tail)
    moved = columns[(columns != 0).any(axis=1)]
    squares, cubes = (moved**2).sum(axis=0), moved**3

    def skewed_t(signs: Floats) -> Floats:
        return _hall_t(signs @ moved, squares, signs @ cubes, len(columns))

    names = [(name, None) for name in _names(thresholds)]
    return _swap_test(skewed_t, names, (len(columns), len(moved)), flips, seed)


def worst_slice(
    baseline: ArrayLike,
    current: ArrayLike,
    slices: ArrayLike,
    thresholds: Sequence[float],
    *,
    tail: Tail = "upper",
    flips: int = FLIPS,
    seed: int = 0,
) -> SwapTest:
    """Test whether the tail got worse in any slice, over all slices at once.

    The statistic of a slice is its sum of a column's differences over sqrt(n_slice times the mean square of
    all prompts): a slice with few events is not judged by its own variance, which would be small exactly when
    its sum is.

    Args:
        baseline: round 0's scores [n_prompts, k].
        current: the scores of the same prompts now.
        slices: integers [n_prompts], fixed in advance and not found in these scores.
        thresholds: frozen thresholds, in the units of the scores; the first is used.
        tail: which end is the bad one.
        flips: number of random exchanges.
        seed: seed of the exchanges.

    Raises:
        InputError: as for `tail_max`, or slices that are not one integer a prompt.
    """
    labels = np.asarray(slices)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"slices: expected integers [n_prompts], got {labels.dtype} of shape {labels.shape}")
    columns, members = _differences(baseline, current, labels, thresholds[:1], tail)
    slice_ids, sizes = np.unique(members, return_counts=True)
    scales = np.sqrt(np.outer(sizes, (columns**2).sum(axis=0) / max(len(columns), 1))).ravel()
    rows = (columns != 0).any(axis=1)
    # [moved prompts, slices * columns]: each prompt's differences, in the place of its slice.
    inside = members[rows, None] == slice_ids
    moved = (inside[:, :, None] * columns[rows, None, :]).reshape(len(inside), scales.size)

    def pooled(signs: Floats) -> Floats:
        return signs @ moved / np.where(scales > 0, scales, np.inf)

    names = [(name, int(slice_id)) for slice_id in slice_ids for name in _names(thresholds[:1])]
    return _swap_test(pooled, names, (len(columns), len(moved)), flips, seed)


def _differences(
    baseline: ArrayLike,
    current: ArrayLike,
    slices: NDArray[np.integer] | None,
    thresholds: Sequence[float],
    tail: Tail,
) -> tuple[Floats, NDArray[np.integer]]:
    """Return tail differences [n_prompts, 2 * thresholds] in canonical order, and each prompt's slice."""
    if len(thresholds) == 0 or not np.isfinite(thresholds).all():
        raise InputError(f"thresholds: expected one or more finite numbers, got {tuple(thresholds)}")
    sign = orientation(tail)
    sides = [sign * as_scores(baseline, "baseline"), sign * as_scores(current, "current")]
    if slices is not None:
        sides.append(slices[:, None].astype(np.float64))
    (before, after, *labels), _ = canonical(*sides)
    members = labels[0][:, 0].astype(np.int64) if labels else np.zeros(len(before), np.int64)
    columns = [
        now - then
        for threshold in thresholds
        for now, then in zip(_tail_means(after, sign * threshold), _tail_means(before, sign * threshold), strict=True)
    ]
    return np.stack(columns, axis=1), members


def _tail_means(panel: Floats, threshold: float) -> tuple[Floats, Floats]:
    """Return each prompt's fraction of samples beyond the threshold, and its mean excess over it."""
    counts = (~np.isnan(panel)).sum(axis=1)
    excess = np.where(panel > threshold, panel - threshold, 0.0)
    return (excess > 0).sum(axis=1) / counts, excess.sum(axis=1) / counts


def _names(thresholds: Sequence[float]) -> list[str]:
    return [f"{kind} {threshold:.6g}" for threshold in thresholds for kind in ("exceedance", "mean excess")]


def _hall_t(sums: Floats, squares: Floats, cubes: Floats, n_prompts: int) -> Floats:
    """Return T + g T^2/3 + g^2 T^3/27 + g/6 with g = skewness / sqrt(n); -inf for columns that do not vary."""
    means, second = sums / n_prompts, squares / n_prompts
    variances = second - means**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means * np.sqrt((n_prompts - 1) / variances)
        g = (cubes / n_prompts - 3 * means * second + 2 * means**3) / variances**1.5 / np.sqrt(n_prompts)
        corrected = t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6
    return np.where(variances > 0, corrected, -np.inf)


def _swap_test(
    statistic: Callable[[Floats], Floats],
    names: Sequence[tuple[str, int | None]],
    sizes: tuple[int, int],
    flips: int,
    seed: int,
) -> SwapTest:
    """Compare the largest statistic with its law under random exchanges of the two rounds.

    Args:
        statistic: signs [exchanges, prompts that moved] -> statistics [exchanges, columns].
        names: of the columns, with their slices.
        sizes: number of prompts, and of prompts that moved.
        flips: number of exchanges.
        seed: seed of the exchanges.
    """
    n_prompts, n_moved = sizes
    if n_moved == 0:
        why = "no prompt differs beyond the thresholds between the rounds"
        return SwapTest(float("nan"), "", None, n_prompts, 0, why)
    observed = statistic(np.ones((1, n_moved)))[0]
    # Exchanges that restore the observed statistic do so only up to rounding.
    reached = observed.max() - 1e-9 * abs(observed.max())
    rng = np.random.default_rng(seed)
    count, block = 0, max(1, BLOCK_ELEMENTS // n_moved)
    for start in range(0, flips, block):
        signs = rng.choice([-1.0, 1.0], size=(min(block, flips - start), n_moved))
        count += int((statistic(signs).max(axis=1) >= reached).sum())
    name, slice_id = names[int(observed.argmax())]
    return SwapTest((1 + count) / (1 + flips), name, slice_id, n_prompts, n_moved)
