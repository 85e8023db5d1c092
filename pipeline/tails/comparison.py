"""Two rounds of one panel, compared: tests, estimates, a verdict, and what would have been missed."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Floats, Tail, as_scores
from pipeline.tails.bulk_tail import BulkTail, bulk_tail_point
from pipeline.tails.detectable import Detectable, smallest_detectable
from pipeline.tails.estimates import Estimate
from pipeline.tails.exchange import SwapTest
from pipeline.tails.multiplicity import simes
from pipeline.tails.plans import Settings
from pipeline.tails.probe import probe_shift
from pipeline.tails.quantities import REPLICATES, measure_both
from pipeline.tails.swap import tail_max, worst_slice
from pipeline.tails.thresholds import half_of, tail_thresholds

Verdict = Literal["green", "amber", "not identified"]

SCREENS = ("tail_max", "worst_slice", "probe")

# In the table: where the bulk lies, how far out the tail reaches, and how much of it there is.
BULK = ("mean", "q50", "q90", "q99", "q99.8", "cvar_1pct", "worst_of_k", "return_level_1000")
BEYOND = ("exceedance", "exceedance_ratio", "mean_excess", "worst_exceedance", "tail_icc")
INTERVAL_LEVEL = 0.95
_HIDES = 0.005
# With this many prompts intervals are a thousandth of a standard deviation wide: less precise ends cost less than the
# wait.
MANY_PROMPTS, REPLICATES_OF_MANY = 500_000, 300


class ComparisonRow(NamedTuple):
    """One quantity in both rounds, and its change; for exceedance_ratio the change is the ratio."""

    quantity: str
    threshold: float | None  # where the tail begins, for quantities that need it
    baseline: Estimate
    current: Estimate
    change: Estimate


class Comparison(NamedTuple):
    """What one panel says about the tail of `current` against that of `baseline`.

    A panel that is checked every round can only raise suspicion: `verdict` is at most amber, and it is amber where any
    one test reaches `level`, so more than `level` of quiet rounds are, or where many more scores are missing than at
    the baseline, since tests see only what has one. Red requires a confirmation: one hypothesis, written down before
    sampling, that holds on prompts never used before (`hypothesis` and `confirm`). Green says only that nothing as
    large as `detectable` is likely to be there.
    """

    panel_p: float | None  # p-value of tail_max, worst_slice and probe together (Simes)
    level: float
    p_values: dict[str, float | None]  # tail_max, worst_slice, probe, bulk_tail; None: no input or not identified
    tests: dict[str, SwapTest]  # those that had input, with their strongest signal or why they are not identified
    estimates: list[ComparisonRow]
    bulk_tail: BulkTail
    detectable: Detectable
    thresholds: tuple[float, ...]
    thresholds_from: str
    n_dropped: int  # prompts without samples on both sides
    missing: tuple[float, float]  # share of the samples without a score, at baseline and now
    hides: bool  # so many more are missing now that the tail may be among them
    tail: Tail

    @property
    def suspicious(self) -> bool:
        """Whether any one test reaches the level."""
        return any(p is not None and p <= self.level for p in (self.p_values[name] for name in SCREENS))

    @property
    def verdict(self) -> Verdict:
        """Amber at most: red takes fresh prompts."""
        if self.suspicious or self.hides:
            return "amber"
        return "not identified" if self.panel_p is None else "green"

    def summary(self) -> str:
        """Return the verdict in words."""
        if self.verdict == "not identified":
            reasons = "; ".join(sorted({test.why for test in self.tests.values() if test.why}))
            return f"not identified: {reasons or 'no test had input'}"
        given = {name: p for name, p in self.p_values.items() if p is not None}
        found = ", ".join(f"{name} p {f'= {p:.3g}' if p else '< 1e-300'}" for name, p in given.items())
        worse = f"the tail may have got worse ({found}); confirm on fresh prompts before calling it red"
        hidden = "{1:.1%} of the samples have no score, at the baseline {0:.1%}, and what is missing may be the tail"
        if self.verdict == "amber":
            said = [worse] * self.suspicious + [hidden.format(*self.missing)] * self.hides
            return f"amber: {'; '.join(said)}"
        return f"green: no sign of a worse tail ({found}). {self.detectable.sentence()}"


def compare(
    baseline: ArrayLike,
    current: ArrayLike,
    *,
    calibration: ArrayLike | None = None,
    slices: ArrayLike | None = None,
    probe: tuple[ArrayLike, ArrayLike] | None = None,
    level: float = 0.05,
    seed: int = 0,
    tail: Tail = "upper",
    thresholds: Sequence[float] | None = None,
    replicates: int | None = None,
) -> Comparison:
    """Compare two rounds on the same prompts: did the tail get worse?

    The null is that it did not, however much the bulk moved. Prompts are the unit of inference; samples of a prompt
    may depend on one another in any way.

    Args:
        baseline: round 0's scores [n_prompts, k], higher is worse, NaN for missing samples.
        current: this round's scores [n_prompts, k'], row i is the same prompt.
        calibration: round-0 scores [m, k''] of other prompts, from which the frozen thresholds come. Without it they
            come from a random half of the baseline's prompts, and the result says so.
        slices: integers [n_prompts], fixed in advance; without them worst_slice is None.
        probe: log-probabilities [n_prompts] of undesired answers at baseline and now, see `probe_shift`.
        level: level of the panel test. Over several rounds the screen is not corrected; confirmations are.
        seed: random seed of the exchanges, the bootstrap and the split.
        tail: the bad end of the scores.
        thresholds: frozen thresholds, least extreme first, instead of those from `calibration`: an absolute rubric,
            or those of an earlier comparison.
        replicates: number of bootstrap replicates; by default 1,000, and 300 for more than 500,000 prompts.

    Raises:
        InputError: arrays of different prompts, of wrong shape, not numbers, or with infinite values.
    """
    if not 0 < level < 1:
        raise InputError(f"level: expected a number between 0 and 1, got {level}")
    before, after = as_scores(baseline, "baseline"), as_scores(current, "current")
    if len(before) != len(after):
        raise InputError(
            f"paired scores: {len(before)}, {len(after)} prompts; "
            "give the same prompts in the same rows, NaN where missing"
        )
    beyond, source = _thresholds(before, calibration, thresholds, tail, seed)
    replicates = replicates or (REPLICATES if len(before) <= MANY_PROMPTS else REPLICATES_OF_MANY)
    tests = _tests(before, after, beyond, slices, probe, tail=tail, seed=seed)
    point = bulk_tail_point(before, after, beyond[0] if beyond else None, tail=tail)
    p_values: dict[str, float | None] = {
        name: tests[name].p_value if name in tests and tests[name].identified else None for name in SCREENS
    }
    screened = [p for p in p_values.values() if p is not None]
    panel_p = simes(screened) if screened else None
    tail_p = p_values["tail_max"]
    # Bulk better and tail worse, both at the level: an intersection needs no correction (Berger 1982).
    p_values["bulk_tail"] = None if tail_p is None or point.p_bulk_better is None else max(tail_p, point.p_bulk_better)
    missing, hides = _missing(before, after)
    return Comparison(
        panel_p,
        level,
        p_values,
        tests,
        _table(before, after, beyond, Settings(None, tail, None, INTERVAL_LEVEL, replicates, seed)),
        point,
        smallest_detectable(before, after, beyond, tail=tail, level=level),
        beyond,
        source,
        _unpaired(before, after),
        missing,
        hides,
        tail,
    )


def _thresholds(
    before: Floats,
    calibration: ArrayLike | None,
    thresholds: Sequence[float] | None,
    tail: Tail,
    seed: int,
) -> tuple[tuple[float, ...], str]:
    if thresholds is not None:
        return tuple(float(threshold) for threshold in thresholds), "given"
    if calibration is not None:
        return tail_thresholds(calibration, tail=tail), "calibration: other prompts at round 0"
    source = "a random half of the baseline's own prompts: no calibration was given"
    return tail_thresholds(half_of(before, seed), tail=tail), source


def _tests(
    before: Floats,
    after: Floats,
    beyond: tuple[float, ...],
    slices: ArrayLike | None,
    probe: tuple[ArrayLike, ArrayLike] | None,
    *,
    tail: Tail,
    seed: int,
) -> dict[str, SwapTest]:
    tests = {}
    if beyond:
        tests["tail_max"] = tail_max(before, after, beyond, tail=tail, seed=seed)
        if slices is not None:
            tests["worst_slice"] = worst_slice(before, after, slices, beyond, tail=tail, seed=seed)
    if probe is not None:
        if any(len(np.atleast_1d(side)) != len(before) for side in probe):
            raise InputError(f"probe: expected {len(before)} log-probabilities on each side, one per prompt")
        tests["probe"] = probe_shift(*probe, seed=seed)
    return tests


def _table(before: Floats, after: Floats, beyond: tuple[float, ...], settings: Settings) -> list[ComparisonRow]:
    parts: list[tuple[tuple[str, ...], float | None]] = [(BULK, None), (BEYOND, beyond[0] if beyond else None)]
    parts += [(("exceedance", "exceedance_ratio", "mean_excess"), threshold) for threshold in beyond[1:2]]
    return [
        ComparisonRow(quantity, threshold, *measured)
        for (quantities, threshold), results in zip(
            parts,
            measure_both(before, after, parts, settings),
            strict=True,
        )
        for quantity, measured in zip(quantities, results, strict=True)
    ]


def _missing(before: Floats, after: Floats) -> tuple[tuple[float, float], bool]:
    """Return the shares of missing samples, and whether the rise could hide half of a tail of 1%, beyond chance."""
    if not before.size or not after.size:
        return (0.0, 0.0), False
    then, now = (np.isnan(side).mean(axis=1) for side in (before, after))
    rise = now - then
    beyond_chance = rise.mean() > 3 * rise.std() / np.sqrt(len(rise))
    return (float(then.mean()), float(now.mean())), bool(rise.mean() >= _HIDES and beyond_chance)


def _unpaired(before: Floats, after: Floats) -> int:
    return len(before) - int((~np.isnan(before).all(axis=1) & ~np.isnan(after).all(axis=1)).sum())
