"""How each quantity is estimated: at once from formulas, or later from bootstrap replicates."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.tails.arrays import Floats, Samples, Tail, canonical, flatten, sample_counts
from pipeline.tails.clustering import IccChange, icc_sums, tail_icc_of
from pipeline.tails.estimates import Basis, Estimate
from pipeline.tails.exceedance import rate_change, rate_interval, rate_ratio
from pipeline.tails.expected_shortfall import ShortfallChange
from pipeline.tails.means import PromptMean, mean_excess, prompt_means, worst_of
from pipeline.tails.pareto import MIN_FITTED, ReturnLevelChange, fit_threshold, obstacle, unbounded
from pipeline.tails.quantiles import (
    QuantileChange,
    enough_for_quantile,
    order_statistic_interval,
    quantile,
)
from pipeline.tails.resample import Replicates, Statistic, percentile_interval, studentised_interval

RATES = ("exceedance", "exceedance_ratio")
# Rates and the like keep their sign when the scores change theirs.
SIGNLESS = (*RATES, "mean_excess", "worst_exceedance", "tail_icc")
OF_THRESHOLD = ("mean_excess", "worst_exceedance", "tail_icc")
CVAR_SHARE = 0.01
# Fewer prompts than this in the worst 1%, and there is no spread to speak of.
MIN_TAIL_PROMPTS = 3


class Settings(NamedTuple):
    """How to measure; `estimate` in quantities.py says what each field means."""

    threshold: float | None
    tail: Tail
    k: int | None
    level: float
    replicates: int
    seed: int


class Sides(NamedTuple):
    """One panel, or two of the same prompts in the same canonical order."""

    current: Floats
    baseline: Floats | None
    current_samples: Samples
    baseline_samples: Samples | None
    k: int  # number of samples of which the worst is taken
    n_dropped: int

    @property
    def basis(self) -> Basis:
        """What an estimate from these sides rests on."""
        return Basis(self.current_samples, self.n_dropped)

    @property
    def all_samples(self) -> list[Samples]:
        """The samples of one or both sides."""
        return [side for side in (self.baseline_samples, self.current_samples) if side is not None]

    def each(self) -> tuple["Sides", "Sides"]:
        """Return the baseline and the current panel by themselves, of the same prompts in the same order."""
        assert self.baseline is not None and self.baseline_samples is not None
        before = self._replace(
            current=self.baseline, current_samples=self.baseline_samples, baseline=None, baseline_samples=None
        )
        return before, self._replace(baseline=None, baseline_samples=None)

    @property
    def identical(self) -> bool:
        """Whether both sides hold the same scores."""
        return self.baseline is not None and np.array_equal(self.baseline, self.current, equal_nan=True)


class Pending(NamedTuple):
    """An estimate that is waiting for its bootstrap replicates."""

    statistic: Statistic
    finish: Callable[[Replicates], Estimate]


def few_tail_prompts(samples: Samples) -> str:
    """Return why the worst 1% comes from too few prompts to be measured; empty where there are enough."""
    level = quantile(samples, 1 - CVAR_SHARE)
    n_tail = np.count_nonzero(samples.fraction_above(level, inclusive=True))
    few = n_tail < MIN_TAIL_PROMPTS
    return f"prompts in the worst 1%: {n_tail}, at least {MIN_TAIL_PROMPTS} are needed" if few else ""


def pair(baseline: Floats | None, current: Floats, k: int | None) -> Sides:
    """Bring one panel, or two of the same prompts, into canonical order; `k` is as in `estimate`."""
    if baseline is None:
        (panel,), _ = canonical(current)
        k = k or sample_counts([panel])[0]
        return Sides(panel, None, flatten(panel), None, k, len(current) - len(panel))
    (before, after), n_dropped = canonical(baseline, current)
    k = k or min(sample_counts([before, after]))
    return Sides(after, before, flatten(after), flatten(before), k, n_dropped)


def plan(quantity: str, sides: Sides, settings: Settings) -> Estimate | Pending:
    """Return the estimate of `quantity`, or what has to be bootstrapped for it."""
    if sides.current_samples.n_prompts == 0:
        return sides.basis.unidentified(
            "no prompt has a score" if sides.baseline is None else "no prompt has a score on both sides"
        )
    if sides.current_samples.n_prompts == 1:
        return sides.basis.unidentified("one prompt: prompts are the unit of inference, at least two are needed")
    if quantity == "mean":
        return _mean(sides, settings)
    if quantity == "worst_of_k":
        return _worst(sides, settings)
    if quantity == "cvar_1pct":
        return _shortfall(sides, settings)
    if quantity == "return_level_1000":
        return _return_level(sides, settings)
    if quantity in OF_THRESHOLD and (settings.threshold is None or np.isnan(settings.threshold)):
        why = "no threshold was given" if settings.threshold is None else "the threshold is not identified"
        return sides.basis.unidentified(why)
    if quantity == "mean_excess":
        return _excess(sides, settings)
    if quantity == "worst_exceedance":
        return _worst_beyond(sides, settings)
    if quantity == "tail_icc":
        return _icc(sides, settings)
    if quantity in RATES:
        return _exceedance(quantity, sides, settings)
    return _quantile(quantity, sides, settings)


def _mean(sides: Sides, settings: Settings) -> Pending:
    numbers = prompt_means(sides.current)
    if sides.baseline is not None:
        numbers = numbers - prompt_means(sides.baseline)
    return _prompt_mean(PromptMean(numbers), sides.basis, settings)


def _excess(sides: Sides, settings: Settings) -> Pending:
    threshold = settings.threshold
    assert threshold is not None
    numbers = mean_excess(sides.current, threshold)
    if sides.baseline is not None:
        numbers = numbers - mean_excess(sides.baseline, threshold)
    floor = 0.0 if sides.baseline is None else -np.inf  # an excess is not negative; a change of it may be
    return _prompt_mean(PromptMean(numbers), sides.basis, settings, beyond=threshold, floor=floor)


def _worst(sides: Sides, settings: Settings) -> Estimate | Pending:
    return _worst_of(sides.current, sides.baseline, sides, settings)


def _worst_beyond(sides: Sides, settings: Settings) -> Estimate | Pending:
    """Plan the chance that the worst of k samples lies beyond the threshold."""
    threshold = settings.threshold
    assert threshold is not None
    current, baseline = (
        None if side is None else np.sort(np.where(np.isnan(side), np.nan, side > threshold), axis=1)
        for side in (sides.current, sides.baseline)
    )
    assert current is not None
    if baseline is None:
        # A rate has the interval of a rate: zero events still have an upper end.
        numbers = worst_of(current, sides.k)
        rows = ~np.isnan(numbers)
        basis = Basis(sides.current_samples, sides.n_dropped + int((~rows).sum()))
        if rows.sum() < 2:
            return basis.unidentified(f"{rows.sum()} prompts have {sides.k} samples; at least two are needed")
        low, high = rate_interval(numbers[rows], int(rows.sum()), settings.level)
        why = "" if numbers[rows].any() else "no sample beyond the threshold: an upper bound"
        return basis.estimate(float(numbers[rows].mean()), low, high, beyond=threshold, why=why)
    return _worst_of(current, baseline, sides, settings, beyond=threshold)


def _worst_of(
    current: Floats, baseline: Floats | None, sides: Sides, settings: Settings, *, beyond: float | None = None
) -> Estimate | Pending:
    numbers = worst_of(current, sides.k)
    if baseline is not None:
        numbers = numbers - worst_of(baseline, sides.k)
    rows = np.flatnonzero(~np.isnan(numbers))
    n_short = len(numbers) - len(rows)
    basis = sides.basis
    if n_short:
        basis = Basis(flatten(sides.current[rows]), sides.n_dropped + n_short)
    if len(rows) < 2:
        return basis.unidentified(f"{len(rows)} prompts have {sides.k} samples; at least two are needed")
    return _prompt_mean(PromptMean(numbers[rows], rows if n_short else None), basis, settings, beyond=beyond)


def _icc(sides: Sides, settings: Settings) -> Estimate | Pending:
    threshold = settings.threshold
    assert threshold is not None
    values = []
    for samples in sides.all_samples:
        rates = samples.fraction_above(threshold)
        value = tail_icc_of(rates, samples.counts)
        if np.isnan(value):
            return sides.basis.unidentified(
                "no prompt has two samples, or all lie on one side of the threshold", beyond=threshold
            )
        values.append(value)
    difference = values[-1] - (values[0] if len(values) == 2 else 0.0)
    statistic = IccChange(
        [icc_sums(samples.fraction_above(threshold), samples.counts) for samples in reversed(sides.all_samples)]
    )

    def finish(replicates: Replicates) -> Estimate:
        found = replicates.values[~np.isnan(replicates.values)]
        if len(found) < len(replicates.values) / 2:
            return sides.basis.unidentified("too few prompts lie beyond the threshold", beyond=threshold)
        low, high = percentile_interval(Replicates(found, None), settings.level)
        return sides.basis.estimate(difference, min(low, difference), max(high, difference), beyond=threshold)

    return Pending(statistic, finish)


def _return_level(sides: Sides, settings: Settings) -> Estimate | Pending:
    """Plan the score that one sample in a thousand exceeds, from a generalised Pareto tail."""
    panels = [panel for panel in (sides.current, sides.baseline) if panel is not None]
    to_line, back = unbounded(panels)
    thresholds = [fit_threshold(panel) for panel in panels]
    for panel, threshold in zip(panels, thresholds, strict=True):
        why = obstacle(panel, threshold, to_line)
        if why:
            return sides.basis.unidentified(why, beyond=thresholds[0])
    statistic = ReturnLevelChange(
        [flatten(to_line(panel)) for panel in panels], [float(to_line(one)) for one in thresholds], to_line, back
    )
    if why := statistic.contradiction():
        return sides.basis.unidentified(why, beyond=thresholds[0])
    value = float(statistic.replicate(np.ones((len(sides.current), 1))).values[0])

    def finish(replicates: Replicates) -> Estimate:
        if np.isfinite(replicates.values).mean() < MIN_FITTED:
            return sides.basis.unidentified("most resamples have no tail with a mean", beyond=thresholds[0])
        low, high = statistic.interval(value, replicates, settings.level)
        return sides.basis.estimate(value, min(low, value), max(high, value), beyond=thresholds[0])

    return Pending(statistic, finish)


def _prompt_mean(
    statistic: PromptMean,
    basis: Basis,
    settings: Settings,
    *,
    beyond: float | None = None,
    floor: float = -np.inf,
) -> Pending:
    def finish(replicates: Replicates) -> Estimate:
        low, high, why = statistic.interval(replicates, settings.level)
        return basis.estimate(float(statistic.numbers.mean()), max(low, floor), high, why=why, beyond=beyond)

    return Pending(statistic, finish)


def _quantile(quantity: str, sides: Sides, settings: Settings) -> Estimate | Pending:
    q = float(quantity[1:]) / 100
    value = quantile(sides.current_samples, q)
    for samples in sides.all_samples:
        if not enough_for_quantile(samples, q):
            why = f"{len(samples.values)} samples: less than one lies beyond {quantity}"
            return sides.basis.unidentified(why, beyond=value)
    if sides.baseline_samples is None:
        low, high = order_statistic_interval(sides.current_samples, q, settings.level)
        return sides.basis.estimate(value, low, high, beyond=value)
    difference = value - quantile(sides.baseline_samples, q)

    def finish(replicates: Replicates) -> Estimate:
        low, high = percentile_interval(replicates, settings.level)
        return sides.basis.estimate(difference, min(low, difference), max(high, difference), beyond=value)

    return Pending(QuantileChange(sides.baseline_samples, sides.current_samples, q), finish)


def _shortfall(sides: Sides, settings: Settings) -> Estimate | Pending:
    beyond = quantile(sides.current_samples, 1 - CVAR_SHARE)
    for samples in sides.all_samples:
        if not enough_for_quantile(samples, 1 - CVAR_SHARE):
            why = f"{len(samples.values)} samples: the worst 1% is less than one of them"
            return sides.basis.unidentified(why, beyond=beyond)
        if why := few_tail_prompts(samples):
            return sides.basis.unidentified(why, beyond=beyond)
    statistic = ShortfallChange(sides.current_samples, sides.baseline_samples, CVAR_SHARE)
    value, error = statistic.point()

    def finish(replicates: Replicates) -> Estimate:
        if error > 0:
            low, high = studentised_interval(value, error, replicates, settings.level, freedom=statistic.freedom())
            return sides.basis.estimate(value, low, high, beyond=beyond)
        low, high = percentile_interval(replicates, settings.level)
        unchanged = sides.baseline is not None and value == 0
        why = "the worst 1% are the same on both sides" if unchanged else "the worst 1% do not vary"
        return sides.basis.estimate(value, min(low, value), max(high, value), beyond=beyond, why=why)

    return Pending(statistic, finish)


def _exceedance(quantity: str, sides: Sides, settings: Settings) -> Estimate:
    basis, threshold, level = sides.basis, settings.threshold, settings.level
    if quantity == "exceedance_ratio" and sides.baseline_samples is None:
        return basis.unidentified("a ratio needs a baseline", beyond=threshold)
    if threshold is None:
        return basis.unidentified("no threshold was given")
    if np.isnan(threshold):
        return basis.unidentified("the threshold is not identified")
    current, n_current = sides.current_samples.fraction_above(threshold), len(sides.current_samples.values)
    if sides.baseline_samples is None:
        low, high = rate_interval(current, n_current, level)
        why = "" if current.any() else "no sample beyond the threshold: an upper bound"
        return basis.estimate(float(current.mean()), low, high, beyond=threshold, why=why)
    baseline = sides.baseline_samples.fraction_above(threshold)
    sizes = len(sides.baseline_samples.values), n_current
    if quantity == "exceedance_ratio" and not (baseline.any() or current.any()):
        return basis.unidentified("no sample beyond the threshold on either side", beyond=threshold)
    if sides.identical:
        same = float(quantity == "exceedance_ratio")
        return basis.estimate(same, same, same, beyond=threshold, why="the two sides are identical")
    compare = rate_ratio if quantity == "exceedance_ratio" else rate_change
    why = "" if current.any() else "no current sample beyond the threshold: an upper bound"
    return basis.estimate(*compare(baseline, current, sizes, level), beyond=threshold, why=why)
