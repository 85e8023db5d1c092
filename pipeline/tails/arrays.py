"""Scores as they come in, and the sorted form in which the statistics read them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError

Floats = NDArray[np.float64]
Tail = Literal["upper", "lower"]


class Samples(NamedTuple):
    """All samples of a panel in descending order, each with the share of its prompt's weight that it carries.

    Every prompt has weight one, however many samples it has: the distribution that is estimated is that of a random
    sample of a random prompt.
    """

    values: Floats  # [n_samples], descending
    prompts: NDArray[np.intp]  # [n_samples], the row each value came from
    masses: Floats  # [n_samples], 1 / (number of samples of that prompt)
    cumulative: Floats  # [n_samples], sums of the masses
    counts: NDArray[np.intp]  # [n_prompts], number of samples of each prompt

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return len(self.counts)

    def fractions(self, end: int) -> Floats:
        """Return the fraction of each prompt's samples that is among the `end` largest, [n_prompts]."""
        return np.bincount(self.prompts[:end], minlength=self.n_prompts) / self.counts

    def fraction_above(self, threshold: float, *, inclusive: bool = False) -> Floats:
        """Return the fraction of each prompt's samples above `threshold` (or at it, if inclusive), [n_prompts]."""
        side: Literal["left", "right"] = "right" if inclusive else "left"
        return self.fractions(int(np.searchsorted(-self.values, -threshold, side=side)))


def as_scores(scores: ArrayLike, name: str = "scores") -> Floats:
    """Return `scores` as a float array [n_prompts, k]; NaN is a missing sample.

    Raises:
        InputError: not numbers, not two-dimensional, or with infinite values.
    """
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected numbers, [n_prompts, k] with NaN for missing samples ({error})") from error
    if array.ndim != 2:
        raise InputError(
            f"{name}: expected a two-dimensional array [n_prompts, k], got shape {array.shape}; "
            "for one sample per prompt pass scores[:, None]"
        )
    infinite = np.isinf(array)
    if infinite.any():
        first = int(infinite.any(axis=1).argmax())
        raise InputError(
            f"{name}: {infinite.sum()} infinite values, the first in row {first}; "
            "give NaN for a missing sample, or a finite bound"
        )
    return array


def orientation(tail: Tail) -> float:
    """Return the sign that turns the bad end of the scores upwards.

    Raises:
        InputError: neither "upper" nor "lower".
    """
    if tail not in ("upper", "lower"):
        raise InputError(f"tail: expected 'upper' or 'lower', got {tail!r}")
    return 1.0 if tail == "upper" else -1.0


def canonical(*sides: Floats) -> tuple[list[Floats], int]:
    """Keep the prompts that have a sample on every side, in an order that depends on their scores alone.

    Bootstrap weights belong to positions in this order, so no result depends on the order of rows or columns.

    Args:
        sides: score arrays [n_prompts, k_side] of the same prompts in the same order.

    Returns:
        The arrays with samples ascending in each row (NaN last) and rows in lexicographic order, and the
        number of prompts that have samples on some side but not on all.

    Raises:
        InputError: the sides differ in their number of prompts.
    """
    if len({len(side) for side in sides}) > 1:
        lengths = ", ".join(str(len(side)) for side in sides)
        raise InputError(
            f"paired scores: {lengths} prompts; give the same prompts in the same rows, NaN where missing"
        )
    present = np.stack([~np.isnan(side).all(axis=1) for side in sides])
    keep = present.all(axis=0)
    kept = [np.sort(side[keep], axis=1) for side in sides]
    order = _lexicographic(np.concatenate(kept, axis=1)) if keep.any() else slice(0)
    return [side[order] for side in kept], int((present.any(axis=0) & ~keep).sum())


def _lexicographic(rows: Floats) -> NDArray[np.intp]:
    """Return the order of rows; the first column alone decides if it has no ties, as continuous scores have none."""
    order = np.argsort(rows[:, 0], kind="stable")
    first = rows[order, 0]
    return order if (first[1:] > first[:-1]).all() else np.lexsort(rows.T[::-1])


def flatten(scores: Floats) -> Samples:
    """Sort the samples of a canonical score array, in which every prompt has at least one."""
    valid = ~np.isnan(scores)
    counts = valid.sum(axis=1)
    rows = np.repeat(np.arange(len(scores)), counts)
    values = scores[valid]
    order = np.argsort(-values, kind="stable")
    masses = 1.0 / counts[rows[order]]
    return Samples(values[order], rows[order], masses, np.cumsum(masses), counts)


def sample_counts(sides: Sequence[Floats]) -> list[int]:
    """Return the largest number of samples that any prompt has, for each side (0 where there is none)."""
    return [int((~np.isnan(side)).sum(axis=1).max(initial=0)) for side in sides]
