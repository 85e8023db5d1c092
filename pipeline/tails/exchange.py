"""Tests that exchange the two rounds within prompts at random.

If a prompt's two rounds are exchangeable, such a test is exact; if only the tail is unchanged on average it holds
asymptotically, because the statistics are studentised (Chung & Romano 2013, Ann. Stat. 41:484; Konietschke & Pauly
2014, Stat. Comput. 24:283).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.tails.arrays import Floats

FLIPS = 4999
# Number of signs in a block: as many as fit in the cache with their products.
BLOCK_ELEMENTS = 1 << 20


class SwapTest(NamedTuple):
    """The result of a one-sided test against "the tail did not get worse"."""

    p_value: float  # NaN: not identified
    column: str  # the per-prompt difference with the strongest signal, such as "excess beyond 3.2"
    slice_id: int | None  # the slice that signal is in; None for all prompts
    n_prompts: int
    prompts_moved: int  # prompts whose tail differs between the rounds; only these carry information
    why: str = ""

    @property
    def identified(self) -> bool:
        """Whether any prompt carries information at all."""
        return not np.isnan(self.p_value)


def unidentified(n_prompts: int, why: str) -> SwapTest:
    """Return the result of a test that has nothing to look at."""
    return SwapTest(float("nan"), "", None, n_prompts, 0, why)


def random_signs(rows: int, columns: int, seed: int) -> Iterator[Floats]:
    """Yield random signs in blocks [b, columns], `rows` in all; one bit of randomness each."""
    rng = np.random.default_rng(seed)
    n_bytes = (columns + 7) // 8
    block = max(1, BLOCK_ELEMENTS // max(columns, 1))
    for start in range(0, rows, block):
        size = min(block, rows - start)
        bits = np.frombuffer(rng.bytes(size * n_bytes), dtype=np.uint8).reshape(size, n_bytes)
        yield np.unpackbits(bits, axis=1, count=columns).astype(np.float64) * 2 - 1


def swap_test(
    statistic: Callable[[Floats], Floats],
    names: Sequence[tuple[str, int | None]],
    sizes: tuple[int, int],
    *,
    flips: int,
    seed: int,
    start: Floats | None = None,
) -> SwapTest:
    """Compare the largest statistic with its distribution under random exchanges of the two rounds.

    Args:
        statistic: signs [exchanges, prompts that moved] -> statistics [exchanges, columns].
        names: name and slice of each column.
        sizes: number of prompts, and number of those that moved.
        flips: number of random exchanges; the p-value is (1 + number as large or larger) / (1 + flips), never zero and
            never too small (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).
        seed: seed of the exchanges.
        start: observed signs; None (all ones) if the statistic already contains them.
    """
    n_prompts, n_moved = sizes
    if n_moved == 0:
        return unidentified(n_prompts, "no prompt differs between the rounds beyond the thresholds")
    observed = statistic(np.ones((1, n_moved)) if start is None else start[None])[0]
    # Exchanges that restore the observed statistic, itself of the order of 1, do so only up to rounding.
    reached = observed.max() - 1e-9 * max(1.0, abs(observed.max()))
    count = sum(int((statistic(signs).max(axis=1) >= reached).sum()) for signs in random_signs(flips, n_moved, seed))
    name, slice_id = names[int(observed.argmax())]
    return SwapTest((1 + count) / (1 + flips), name, slice_id, n_prompts, n_moved)


def hall_t(sums: Floats, squares: Floats, cubes: Floats, n_prompts: int) -> Floats:
    """Return T + g T^2/3 + g^2 T^3/27 + g/6 with g = skewness / sqrt(n); -inf for columns that do not vary.

    Student's t corrected for the skewness of what is averaged (Hall 1992, JRSS-B 54:221).

    Args:
        sums: sum of each column over prompts, [exchanges, columns].
        squares: sums of squares.
        cubes: sums of third powers.
        n_prompts: number of prompts, including those at zero.
    """
    means, second = sums / n_prompts, squares / n_prompts
    variances = second - means**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means * np.sqrt((n_prompts - 1) / variances)
        g = (cubes / n_prompts - 3 * means * second + 2 * means**3) / variances**1.5 / np.sqrt(n_prompts)
        corrected = t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6
    return np.where(variances > 0, corrected, -np.inf)
