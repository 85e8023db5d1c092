"""The drift table: every quantity of a round, and its change against round 0 and against the round before."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from numpy.typing import ArrayLike

from pipeline.tails.arrays import Tail, as_scores, sample_counts
from pipeline.tails.estimates import Estimate
from pipeline.tails.plans import Settings
from pipeline.tails.quantities import QUANTITIES, REPLICATES, measure


class Row(NamedTuple):
    """One quantity of one round, for one scorer and slice.

    For exceedance_ratio the estimate is the ratio to round 0, and both changes are ratios: no change is 1.
    """

    quantity: str
    estimate: Estimate
    change_from_baseline: Estimate | None  # None: there is no such round
    change_from_previous: Estimate | None

    def flat(self) -> dict[str, str | int | float | None]:
        """Return one record for JSON; None where not identified or not bounded, as the `why` fields explain."""
        record: dict[str, str | int | float | None] = {"quantity": self.quantity}
        parts = (
            ("", self.estimate),
            ("baseline_", self.change_from_baseline),
            ("previous_", self.change_from_previous),
        )
        for prefix, part in parts:
            if part is None:
                continue
            for field, value in part._asdict().items():
                unbounded = isinstance(value, float) and not math.isfinite(value)
                record[prefix + field] = None if unbounded else value
        return record


def summarise(
    baseline: ArrayLike | None,
    current: ArrayLike,
    previous: ArrayLike | None = None,
    *,
    quantities: Sequence[str] = QUANTITIES,
    threshold: float | None = None,
    tail: Tail = "upper",
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Row]:
    """Return the drift table of one scorer on one slice.

    Args:
        baseline: round 0's scores [n_prompts, k], or None when `current` is round 0.
        current: this round's scores; row i is the same prompt in all three arrays.
        previous: the scores of the round before, or None. Round 1 may give round 0 twice.
        quantities: names of quantities, see `estimate`.
        threshold: frozen threshold of the exceedance rows, see `frozen_threshold`; without it they are not
            identified.
        tail: the bad end of the scores, see `estimate`.
        level: coverage of each interval by itself.
        replicates: number of bootstrap replicates.
        seed: seed of the bootstrap.

    Raises:
        InputError: arrays of different prompts, of wrong shape, or with infinite values.
    """
    now = as_scores(current, "current")
    before = None if baseline is None else as_scores(baseline, "baseline")
    last = None if previous is None else before if previous is baseline else as_scores(previous, "previous")
    # The worst of 8 is worse than the worst of 4: all columns of the table take the worst of the same number.
    k = min(
        (count for count in sample_counts([s for s in (now, before, last) if s is not None]) if count),
        default=1,
    )
    settings = Settings(threshold, tail, k, level, replicates, seed)

    here = measure(None, now, quantities, settings)
    since_baseline = None if before is None else measure(before, now, quantities, settings)
    since_previous = (
        None if last is None else since_baseline if last is before else measure(last, now, quantities, settings)
    )
    if since_baseline is not None and "exceedance_ratio" in here:
        here["exceedance_ratio"] = since_baseline["exceedance_ratio"]
    return [
        Row(
            quantity,
            here[quantity],
            None if since_baseline is None else since_baseline[quantity],
            None if since_previous is None else since_previous[quantity],
        )
        for quantity in quantities
    ]
