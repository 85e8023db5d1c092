import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.errors import InputError
from pipeline.tails import change, estimate, frozen_threshold
from pipeline.tails.arrays import canonical, flatten
from pipeline.tails.clustering import effective_size
from pipeline.tails.quantiles import order_statistic_interval, quantile, quantile_replicates
from pipeline.tails.resample import prompt_weights

LEVELS = (0.01, 0.25, 0.5, 0.9, 0.99)


def panel_of(scores):
    (panel,), _ = canonical(scores)
    return panel, flatten(panel)


@pytest.mark.parametrize("shape", [(50, 2), (100, 1), (33, 3), (7, 5)])
@pytest.mark.parametrize("q", LEVELS)
def test_quantile_is_the_inverse_distribution_function(shape, q):
    scores = np.random.default_rng(0).normal(size=shape)
    assert quantile(panel_of(scores)[1], q) == np.quantile(scores, q, method="inverted_cdf")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), q=st.sampled_from(LEVELS))
def test_quantile_weighs_prompts_equally(messy, seed, q):
    panel, samples = panel_of(messy(seed)[0])
    if len(panel) == 0:
        return
    # Repeating each prompt's samples to a common number gives equal weights in whole samples.
    repeated = np.concatenate([np.repeat(row[~np.isnan(row)], 12 // (~np.isnan(row)).sum()) for row in panel])
    assert quantile(samples, q) == np.quantile(repeated, q, method="inverted_cdf")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), q=st.sampled_from(LEVELS))
def test_replicates_are_quantiles_of_the_resampled_panel(messy, seed, q):
    panel, samples = panel_of(messy(seed)[0])
    if len(panel) < 2:
        return
    weights = next(prompt_weights(len(panel), 20, seed=seed))
    expected = [quantile(panel_of(np.repeat(panel, w.astype(int), axis=0))[1], q) for w in weights.T]
    np.testing.assert_array_equal(quantile_replicates(samples, q, weights), expected)


def test_replicates_outside_the_window_are_found():
    samples = panel_of(np.arange(1000.0)[:, None])[1]
    weights = np.zeros((1000, 2))
    weights[3, 0] = weights[990, 1] = 1000.0
    np.testing.assert_array_equal(quantile_replicates(samples, 0.5, weights), [3, 990])


@pytest.mark.parametrize(("n_prompts", "q"), [(400, 0.5), (1000, 0.99), (300, 0.9)])
def test_one_sample_a_prompt_gives_the_binomial_interval(n_prompts, q):
    scores = np.arange(float(n_prompts))[:, None]
    low, high = order_statistic_interval(panel_of(scores)[1], q, 0.95)
    # Ranks count from one, the scores from nought.
    assert low == stats.binom.ppf(0.025, n_prompts, q) - 1
    assert high == stats.binom.ppf(0.975, n_prompts, q)


def test_copies_of_one_sample_count_once(random_effects):
    scores = random_effects(np.random.default_rng(0), 500, 1)[0]
    assert order_statistic_interval(panel_of(scores)[1], 0.9, 0.95) == order_statistic_interval(
        panel_of(np.repeat(scores, 8, axis=1))[1], 0.9, 0.95
    )


def test_the_design_effect_is_that_of_the_random_effects_model(random_effects):
    scores = random_effects(np.random.default_rng(0), 20_000, 4, icc=0.5)[0]
    # Sign events of a bivariate normal with correlation 0.5 correlate by (2 / pi) asin(0.5) = 1 / 3.
    assert effective_size((scores > 0).mean(axis=1), 80_000) == pytest.approx(80_000 / (1 + 3 / 3), rel=0.03)


def test_effective_size_without_events_is_the_number_of_prompts():
    assert effective_size(np.zeros(50), 400) == pytest.approx(50)
    assert effective_size(np.ones(50), 400) == pytest.approx(50)


def test_the_far_quantile_of_a_small_panel_is_not_bounded():
    result = estimate(np.arange(120.0)[:, None], "q99")
    assert result.value == 118
    assert result.high == np.inf
    assert "not bounded above" in result.why
    assert result.low < 118


def test_a_quantile_beyond_the_sample_is_not_identified():
    result = estimate(np.arange(90.0)[:, None], "q99")
    assert not result.identified
    assert np.isnan([result.value, result.low, result.high]).all()
    assert "90 samples" in result.why


def test_change_of_every_quantile_under_a_shift():
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=(800, 2))
    for quantity in ("q10", "q50", "q90", "q99"):
        result = change(baseline, baseline + 1.5, quantity)
        assert result.value == pytest.approx(1.5)
        assert (result.low, result.high) == (pytest.approx(1.5), pytest.approx(1.5))


def test_frozen_threshold():
    scores = np.arange(1000.0).reshape(250, 4)
    assert frozen_threshold(scores, 0.99) == 989
    assert (scores > 989).mean() == 0.01
    lower = frozen_threshold(scores, 0.99, tail="lower")
    assert (scores < lower).mean() == 0.01
    assert np.isnan(frozen_threshold(scores[:10], 0.99))
    with pytest.raises(InputError, match="tail"):
        frozen_threshold(scores, tail="left")
    with pytest.raises(InputError, match="level"):
        frozen_threshold(scores, 99)
