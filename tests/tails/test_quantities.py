import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tails import QUANTITIES, change, estimate
from pipeline.tails.plans import Settings
from pipeline.tails.quantities import measure

SEEDS = st.integers(0, 10**6)
OWN = [quantity for quantity in QUANTITIES if quantity != "exceedance_ratio"]
QUANTILES = ["q50", "q90", "q99"]
AVERAGES = ["mean", "cvar_1pct", "worst_of_k"]
RATES = ["exceedance", "exceedance_ratio"]


def measured(baseline, current, quantities=QUANTITIES, **changed):
    plain = Settings(threshold=0.8, tail="upper", k=None, level=0.95, replicates=60, seed=0)
    return measure(baseline, current, quantities, plain._replace(**changed))


def ends(results):
    return np.array([result[:3] for result in results.values()])


def both(baseline, current, **changed):
    return np.concatenate([ends(measured(side, current, **changed)) for side in (None, baseline)])


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS)
def test_order_of_rows_and_columns_does_not_matter(messy, seed):
    baseline, current = messy(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(current))
    shuffled = [rng.permuted(side[rows], axis=1) for side in (baseline, current)]
    np.testing.assert_array_equal(both(baseline, current), both(*shuffled))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_quantiles_and_rates_follow_monotone_maps(messy, seed):
    baseline, current = messy(seed)
    here = measured(None, current, [*QUANTILES, "exceedance"])
    mapped = measured(None, np.exp(current), [*QUANTILES, "exceedance"], threshold=np.exp(0.8))
    np.testing.assert_allclose(np.exp(ends(here)[:3]), ends(mapped)[:3])
    np.testing.assert_array_equal(ends(here)[3], ends(mapped)[3])
    changes = measured(baseline, current, RATES)
    mapped_changes = measured(np.exp(baseline), np.exp(current), RATES, threshold=np.exp(0.8))
    np.testing.assert_array_equal(ends(changes), ends(mapped_changes))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_averages_and_quantiles_follow_affine_maps(random_effects, seed, scale, shift):
    baseline, current = random_effects(np.random.default_rng(seed), 150, 3)
    quantities = AVERAGES + QUANTILES
    here, moved = (measured(None, scores, quantities) for scores in (current, scale * current + shift))
    np.testing.assert_allclose(ends(moved), scale * ends(here) + shift, rtol=1e-6, atol=1e-6)
    changed = ends(measured(baseline, current, quantities))
    moved_change = ends(measured(scale * baseline + shift, scale * current + shift, quantities))
    np.testing.assert_allclose(moved_change, scale * changed, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_the_lower_tail_mirrors_the_upper(messy, seed):
    baseline, current = messy(seed)
    for side in (None, baseline):
        upper = measured(side, current)
        lower = measured(None if side is None else -side, -current, tail="lower", threshold=-0.8)
        expected = {name: one if name in RATES else one.mirrored() for name, one in upper.items()}
        np.testing.assert_array_equal(ends(lower), ends(expected))
        assert [one[3:] for one in lower.values()] == [one[3:] for one in upper.values()]


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_every_interval_holds_its_value(messy, seed):
    baseline, current = messy(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [*measured(None, current).values(), *measured(baseline, current).values()]
    for result in results:
        if result.identified:
            assert result.low <= result.value <= result.high
        else:
            assert result.why
            assert np.isnan([result.low, result.high]).all()


@pytest.mark.parametrize("k", [1, 4])
def test_copied_samples_do_not_shrink_an_interval(random_effects, k):
    sides = random_effects(np.random.default_rng(k), 400, k)
    copies = [np.repeat(side, 3, axis=1) for side in sides]
    quantities = ["mean", "cvar_1pct", *QUANTILES, *RATES]
    for baseline, copied in ((None, None), (sides[0], copies[0])):
        once, often = (
            ends(measured(first, second, quantities)) for first, second in ((baseline, sides[1]), (copied, copies[1]))
        )
        np.testing.assert_allclose(often, once, rtol=1e-9)


def test_treating_samples_as_prompts_is_far_too_narrow(random_effects):
    scores = random_effects(np.random.default_rng(0), 400, 16, icc=0.9)[0]
    rows = scores.reshape(-1, 1)
    # The design effect of the mean is 1 + 15 * 0.9 = 14.5; those of tail events are smaller.
    for quantity, least in (("mean", 3.3), ("q99", 1.8), ("cvar_1pct", 1.8)):
        clustered, naive = estimate(scores, quantity), estimate(rows, quantity)
        assert clustered.value == pytest.approx(naive.value)
        assert clustered.high - clustered.low > least * (naive.high - naive.low)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (np.empty((0, 4)), "no prompt"),
        (np.empty((5, 0)), "no prompt"),
        (np.full((5, 4), np.nan), "no prompt"),
        (np.ones((1, 400)), "one prompt"),
    ],
)
def test_nothing_is_said_without_prompts(quantity, scores, why):
    pair = change(scores, scores, quantity, threshold=0.0)
    results = [pair] if quantity == "exceedance_ratio" else [pair, estimate(scores, quantity, threshold=0.0)]
    for result in results:
        assert not result.identified
        assert np.isnan(result[:3]).all()
        assert why in result.why


@pytest.mark.parametrize("quantity", OWN)
def test_constant_scores_come_with_a_warning_or_a_bound(quantity):
    result = estimate(np.full((500, 2), 3.0), quantity, threshold=3.0)
    assert result.value == (0.0 if quantity == "exceedance" else 3.0)
    assert result.why


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_identical_sides_show_no_change_and_say_so(quantity, random_effects):
    scores = random_effects(np.random.default_rng(0), 500, 2)[0]
    result = change(scores, scores.copy(), quantity, threshold=1.0)
    same = 1.0 if quantity == "exceedance_ratio" else 0.0
    assert result[:3] == (same, same, same)
    assert result.why


def test_prompts_missing_on_one_side_are_dropped_and_counted(random_effects):
    baseline, current = random_effects(np.random.default_rng(0), 300, 2)
    baseline[:20], current[20:50] = np.nan, np.nan
    for quantity in QUANTITIES:
        result = change(baseline, current, quantity, threshold=1.0)
        alone = change(baseline[50:], current[50:], quantity, threshold=1.0)
        assert result == alone._replace(n_dropped=50)
        assert (result.n_prompts, result.n_samples) == (250, 500)


def test_results_depend_on_the_seed_and_on_nothing_else(random_effects):
    scores = random_effects(np.random.default_rng(0), 300, 2)[0]
    assert estimate(scores, "mean") == estimate(scores, "mean")
    assert estimate(scores, "mean") != estimate(scores, "mean", seed=1)


def test_a_quantity_does_not_depend_on_its_company(random_effects):
    baseline, current = random_effects(np.random.default_rng(0), 300, 2)
    together = measured(baseline, current)
    for quantity, result in together.items():
        assert measured(baseline, current, [quantity])[quantity] == result


def test_higher_levels_are_wider(random_effects):
    baseline, current = random_effects(np.random.default_rng(0), 1000, 2)
    for quantity in QUANTITIES:
        wide, narrow = (change(baseline, current, quantity, threshold=1.0, level=level) for level in (0.99, 0.8))
        assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("name", ["q0", "q100", "median", "q-1", "cvar", ""])
def test_unknown_quantities_are_refused(name):
    with pytest.raises(InputError, match="unknown quantity"):
        estimate(np.zeros((3, 1)), name)


@pytest.mark.parametrize(
    "wrong", [{"tail": "left"}, {"level": 95}, {"replicates": 0}, {"k": 0}, {"threshold": np.inf}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        estimate(np.zeros((3, 1)), "mean", **wrong)
