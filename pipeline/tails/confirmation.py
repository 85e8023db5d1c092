"""Red: one hypothesis, written down before sampling, tested on prompts that were never used before."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Tail, as_scores, canonical, flatten, orientation
from pipeline.tails.bulk_tail import bulk_tail_point
from pipeline.tails.comparison import Comparison
from pipeline.tails.exceedance import rate_ratio
from pipeline.tails.exchange import SwapTest, unidentified
from pipeline.tails.probe import DIFFUSE
from pipeline.tails.swap import tail_max

# Enough exchanges that a p-value near .001 is known to within a tenth of its size.
FLIPS = 99_999
# What is significant must also matter: a quarter more events.
MATERIAL_RATIO = 1.25
# Samples beyond a threshold, of both rounds together: fewer, and their ratio is noise.
ENOUGH_EVENTS = 10


class Hypothesis(NamedTuple):
    """What will be tested, and on which prompts: written to the run before they are sampled."""

    slice_id: int | None  # draw the fresh prompts from this slice; None: from the whole pool
    thresholds: tuple[float, ...]  # frozen
    tail: Tail = "upper"

    def flat(self) -> dict[str, Any]:
        """Return a record for JSON; `Hypothesis(**record)` reads it back."""
        return self._asdict() | {"thresholds": list(self.thresholds)}


class Confirmation(NamedTuple):
    """Whether the hypothesis held. Red: it rejects at alpha, and the effect is large enough to matter."""

    hypothesis: Hypothesis
    alpha: float
    test: SwapTest
    ratio: float  # of the rates beyond a threshold, current / baseline, at the threshold where it is largest
    bulk_better: bool | None  # at alpha: red while the bulk improves is what the mean cannot see

    @property
    def rejected(self) -> bool:
        """Whether the hypothesis "the tail did not get worse" is rejected at alpha."""
        return self.test.identified and self.test.p_value <= self.alpha

    @property
    def material(self) -> bool:
        """Whether the effect, as measured on these prompts, is large enough to matter."""
        return self.ratio >= MATERIAL_RATIO

    @property
    def red(self) -> bool:
        """Whether the alarm is red."""
        return self.rejected and self.material


def hypothesis(comparison: Comparison) -> Hypothesis | None:
    """Return the hypothesis that a panel points to, or None where no single test reaches the panel's level.

    The screen is more generous than the verdict, which holds its level for all tests together: a hypothesis costs
    fresh prompts, not trust. It names a slice where worst_slice is at least as significant as tail_max: all fresh
    prompts are then spent where they matter. Where neither is significant, the probe may still point somewhere, but
    only through a few prompts that rose: a shift of all of them may be no more than a sharper model. The hypothesis is
    about samples even then, on more prompts than the panel's: training moves log-probabilities in many ways (a placebo
    arm shows it), and red should mean that scores got worse. Any other choice is equally valid if it is made before
    the fresh prompts are sampled.
    """
    p = {name: 1.0 if value is None else value for name, value in comparison.p_values.items()}
    silent = min(p["worst_slice"], p["tail_max"]) > comparison.level
    if silent and (p["probe"] > comparison.level or comparison.tests["probe"].column == DIFFUSE):
        return None
    in_slice = not silent and p["worst_slice"] <= p["tail_max"]
    slice_id = comparison.tests["worst_slice"].slice_id if in_slice else None
    return Hypothesis(slice_id, comparison.thresholds, comparison.tail)


def confirm(
    baseline: ArrayLike,
    current: ArrayLike,
    hypothesis: Hypothesis,
    alpha: float,
    *,
    flips: int = FLIPS,
    seed: int = 0,
) -> Confirmation:
    """Test one hypothesis on fresh prompts.

    Whatever led to the hypothesis, P(red) is at most alpha if the tail did not get worse, because these prompts had no
    part in it: exactly where a prompt's two rounds are exchangeable, asymptotically otherwise. Over R rounds spend
    `confirmation_alpha` in each.

    Args:
        baseline: scores [n_prompts, k] of fresh prompts under the base.
        current: the same prompts under the policy.
        hypothesis: the hypothesis written down before sampling.
        alpha: level of this confirmation.
        flips: number of random exchanges.
        seed: random seed of the exchanges.

    Raises:
        InputError: an alpha that this many exchanges cannot reach, or input as for `compare`.
    """
    if not 2 / (flips + 1) <= alpha < 1:
        raise InputError(f"alpha: {flips} exchanges resolve levels from {2 / (flips + 1):.2g} to 1, got {alpha}")
    before, after = as_scores(baseline, "baseline"), as_scores(current, "current")
    tail, thresholds = hypothesis.tail, hypothesis.thresholds
    if thresholds:
        test = tail_max(before, after, thresholds, tail=tail, flips=flips, seed=seed)
    else:
        test = unidentified(len(before), "the hypothesis has no thresholds")
    point = bulk_tail_point(before, after, thresholds[0] if thresholds else None, tail=tail)
    better = None if point.p_bulk_better is None else point.p_bulk_better <= alpha
    return Confirmation(hypothesis, alpha, test, _ratio(before, after, hypothesis), better)


def _ratio(before: np.ndarray, after: np.ndarray, hypothesis: Hypothesis) -> float:
    """Return the largest exceedance ratio beyond a threshold with events enough for one, else that of the first.

    In a slice that is bad already, nearly all samples may lie beyond the first thresholds, before and after; beyond
    the last ones there may be a single event. 1 where there are no thresholds.
    """
    sign = orientation(hypothesis.tail)
    (first, second), _ = canonical(sign * before, sign * after)
    if len(first) == 0 or not hypothesis.thresholds:
        return 1.0
    sides = flatten(first), flatten(second)
    sizes = len(sides[0].values), len(sides[1].values)
    beyond = [sign * threshold for threshold in hypothesis.thresholds]
    enough = [u for u in beyond if sum(int((side.values > u).sum()) for side in sides) >= ENOUGH_EVENTS]
    shares = [[side.fraction_above(u) for side in sides] for u in enough or beyond[:1]]
    return max(rate_ratio(then, now, sizes, 0.95)[0] for then, now in shares)
