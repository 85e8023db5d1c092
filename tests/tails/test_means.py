from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from pipeline.tails import change, estimate
from pipeline.tails.means import PromptMean, worst_of
from pipeline.tails.resample import prompt_weights


def test_expected_worst_of_k_against_all_subsets():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.normal(size=(4, 5)), axis=1)
    scores[1, 3:] = np.nan
    scores[2, 2:] = np.nan
    expected = [
        np.mean([max(subset) for subset in combinations(row[~np.isnan(row)], 3)])
        if (~np.isnan(row)).sum() >= 3
        else np.nan
        for row in scores
    ]
    np.testing.assert_allclose(worst_of(scores, 3), expected)
    assert np.isnan(expected[2])


def test_worst_of_all_samples_is_the_maximum():
    scores = np.sort(np.random.default_rng(1).normal(size=(6, 4)), axis=1)
    np.testing.assert_array_equal(worst_of(scores, 4), scores[:, -1])


def test_replicates_equal_the_mean_of_the_resampled_prompts():
    numbers = np.random.default_rng(2).normal(size=25)
    weights = next(prompt_weights(25, 30, seed=0))
    replicates = PromptMean(numbers).replicate(weights)
    for column, value, error in zip(weights.T, replicates.values, replicates.errors, strict=True):
        resampled = np.repeat(numbers, column.astype(int))
        assert value == pytest.approx(resampled.mean())
        assert error == pytest.approx(resampled.std() / np.sqrt(24))


def test_prompts_left_out_carry_no_weight():
    numbers = np.random.default_rng(2).normal(size=25)
    weights = next(prompt_weights(25, 30, seed=0))
    rows = np.arange(5, 25)
    replicates = PromptMean(numbers[rows], rows).replicate(weights)
    resampled = np.repeat(numbers[rows], weights[rows, 0].astype(int))
    assert replicates.values[0] == pytest.approx(resampled.mean())


def test_mean_change_agrees_with_scipy(random_effects):
    baseline, current = random_effects(np.random.default_rng(3), 300, 3)
    differences = (current - baseline).mean(axis=1)
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = change(baseline, current, "mean", replicates=4000)
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(differences.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_few_prompts_away_from_the_rest_get_students_interval():
    scores = np.zeros((100, 2))
    scores[:3] = 1.0
    result = estimate(scores, "mean")
    reach = stats.t.ppf(0.975, 99) * scores.mean(axis=1).std(ddof=1) / 10
    assert (result.low, result.high) == (pytest.approx(0.03 - reach), pytest.approx(0.03 + reach))
    assert "only 3 of 100 prompts" in result.why


def test_worst_of_k_leaves_out_prompts_with_fewer_samples():
    scores = np.random.default_rng(0).normal(size=(40, 3))
    scores[:10, 2] = np.nan
    result = estimate(scores, "worst_of_k")
    assert result.value == pytest.approx(scores[10:].max(axis=1).mean())
    assert (result.n_prompts, result.n_samples, result.n_dropped) == (30, 90, 10)
    assert estimate(scores, "worst_of_k", k=2).n_prompts == 40


def test_worst_of_k_compares_at_equal_k(random_effects):
    baseline, current = random_effects(np.random.default_rng(5), 2000, 4)
    result = change(baseline[:, :2], current, "worst_of_k")
    assert result.low < 0 < result.high
