"""Tests of "the tail did not get worse", over all prompts and over slices of them.

What is compared is how far out a sample lies in the ranking of both rounds together: u marks where the tail begins,
and a sample beyond it has the exponential score log(share beyond u / share beyond the sample) of Savage (1956, Ann.
Math. Stat. 27:590). The ranking does not know which round a sample came from, so exchanging rounds leaves it
unchanged; and a judge's scale, heavy-tailed or squeezed into [0, 1], makes no difference to the result. Scores count
once as they are, for harm not far beyond u, and once squared, so that a handful of prompts that went far wrong is not
drowned out by the many that move just beyond u.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats, Tail, as_scores, canonical, orientation
from pipeline.tails.exchange import FLIPS, SwapTest, hall_t, swap_test


def tail_max(
    baseline: ArrayLike,
    current: ArrayLike,
    thresholds: Sequence[float],
    *,
    tail: Tail = "upper",
    flips: int = FLIPS,
    seed: int = 0,
) -> SwapTest:
    """Test whether the tail got worse anywhere: the largest of several t statistics, with their joint distribution.

    Its columns are the prompts' changes in mean tail score beyond the first threshold, and in mean squared tail score
    beyond each of the others (beyond the first, if there is only one). Each has a t statistic corrected for skewness;
    the largest is compared with those of rounds exchanged at random within prompts (max-T: Westfall &
    Young 1993, Resampling-Based Multiple Testing).

    Args:
        baseline: round 0's scores [n_prompts, k].
        current: the scores of the same prompts now.
        thresholds: where the tail begins, in the units of the scores, fixed in advance or taken from other prompts.
        tail: the bad end of the scores.
        flips: number of random exchanges; p-values are at least 1 / (flips + 1).
        seed: seed of the exchanges.

    Raises:
        InputError: arrays of different prompts, of wrong shape, with infinite values, or no thresholds.
    """
    thresholds = tuple(thresholds)
    further = thresholds[1:] or thresholds
    columns, _ = _differences(baseline, current, None, [thresholds[:1], further], tail)
    moved = columns[(columns != 0).any(axis=1)]
    squares, cubes = (moved**2).sum(axis=0), moved**3

    def skewed_t(signs: Floats) -> Floats:
        return hall_t(signs @ moved, squares, signs @ cubes, len(columns))

    names = [(name, None) for name in _names(thresholds[:1], further)]
    return swap_test(skewed_t, names, (len(columns), len(moved)), flips=flips, seed=seed)


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

    The statistic of a slice is its sum of changes in mean tail score beyond the first threshold, plain or squared,
    over sqrt(n_slice times the mean square of all prompts): a slice with few events is not judged by its own
    variance, which would be small exactly when its sum is.

    Args:
        baseline: round 0's scores [n_prompts, k].
        current: the scores of the same prompts now.
        slices: integers [n_prompts], fixed in advance and not chosen from these scores.
        thresholds: thresholds as for `tail_max`; only the first is used.
        tail: the bad end of the scores.
        flips: number of random exchanges.
        seed: seed of the exchanges.

    Raises:
        InputError: as for `tail_max`, or slices that are not one integer per prompt.
    """
    labels = np.asarray(slices)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"slices: expected integers [n_prompts], got {labels.dtype} of shape {labels.shape}")
    first = tuple(thresholds)[:1]
    columns, members = _differences(baseline, current, labels, [first, first], tail)
    slice_ids, sizes = np.unique(members, return_counts=True)
    scales = np.sqrt(np.outer(sizes, (columns**2).sum(axis=0) / max(len(columns), 1))).ravel()
    rows = (columns != 0).any(axis=1)
    # [moved prompts, slices * columns]: each prompt's changes, in the columns of its slice.
    inside = members[rows, None] == slice_ids
    moved = (inside[:, :, None] * columns[rows, None, :]).reshape(len(inside), scales.size)

    def pooled(signs: Floats) -> Floats:
        return signs @ moved / np.where(scales > 0, scales, np.inf)

    names = [(name, int(slice_id)) for slice_id in slice_ids for name in _names(first, first)]
    return swap_test(pooled, names, (len(columns), len(moved)), flips=flips, seed=seed)


def _names(plain: Sequence[float], squared: Sequence[float]) -> list[str]:
    return [f"excess beyond {u:.6g}" for u in plain] + [f"squared excess beyond {u:.6g}" for u in squared]


def _differences(
    baseline: ArrayLike,
    current: ArrayLike,
    slices: NDArray[np.integer] | None,
    thresholds: Sequence[Sequence[float]],
    tail: Tail,
) -> tuple[Floats, NDArray[np.integer]]:
    """Return changes in mean tail score in canonical order, and each prompt's slice.

    The columns are those of thresholds[0] with the plain score, then those of thresholds[1] with the squared one.
    """
    if len(thresholds[0]) == 0 or not all(np.isfinite(some).all() for some in thresholds):
        raise InputError(f"thresholds: expected one or more finite numbers, got {[*thresholds[0], *thresholds[1]]}")
    sign = orientation(tail)
    sides = [sign * as_scores(baseline, "baseline"), sign * as_scores(current, "current")]
    if slices is not None:
        sides.append(slices[:, None].astype(np.float64))
    (before, after, *labels), _ = canonical(*sides)
    members = labels[0][:, 0].astype(np.int64) if labels else np.zeros(len(before), np.int64)
    columns = []
    for power, some in enumerate(thresholds, start=1):
        then, now = tail_scores(before, after, sign * np.asarray(some, dtype=np.float64), power=power)
        # Sums of the same samples in another order differ by rounding, and would count as a prompt that moved.
        columns.append(np.where(np.isclose(now, then, rtol=1e-9, atol=0.0), 0.0, now - then))
    return np.concatenate(columns, axis=1), members


def tail_scores(before: Floats, after: Floats, thresholds: Floats, *, power: int) -> tuple[Floats, Floats]:
    """Return each prompt's mean score beyond each threshold on either side, twice [n_prompts, thresholds].

    Args:
        before: baseline scores, [n_prompts, k], higher is worse, every prompt with at least one sample.
        after: current scores of the same prompts, [n_prompts, k'].
        thresholds: thresholds of the columns, [thresholds].
        power: power to which a sample's score is raised before the mean over its prompt's samples.
    """
    n_prompts, lowest = len(before), thresholds.min()
    parts = [_samples_beyond(side, lowest) for side in (before, after)]
    rows = np.concatenate([parts[0][0], parts[1][0] + n_prompts])
    values, masses = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    levels, places = np.unique(-values, return_inverse=True)
    at = np.bincount(places, weights=masses, minlength=len(levels))
    # Counting half of its own level, a share is never zero.
    log_shares = np.log(np.cumsum(at) - at / 2)[places]
    result = np.zeros((2 * n_prompts, len(thresholds)))
    for column, threshold in zip(result.T, thresholds, strict=True):
        beyond = values > threshold
        if beyond.any():
            scores = masses[beyond] * (np.log(masses[beyond].sum()) - log_shares[beyond]) ** power
            column[:] = np.bincount(rows[beyond], weights=scores, minlength=len(column))
    return result[:n_prompts], result[n_prompts:]


def _samples_beyond(side: Floats, threshold: float) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return the prompts, values, and shares of their prompt's weight, of all samples beyond a threshold."""
    rows, columns = np.nonzero(side > threshold)
    return rows, side[rows, columns], 1.0 / (~np.isnan(side)).sum(axis=1)[rows]
