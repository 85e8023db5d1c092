import numpy as np
import pytest
from scipy import special, stats

from pipeline.tails import change, estimate


@pytest.mark.parametrize(
    ("law", "tolerance"), [(stats.expon(), 0.15), (stats.genpareto(0.2), 0.3), (stats.uniform(0, 5), 0.05)]
)
def test_the_level_that_one_in_a_thousand_exceeds(law, tolerance):
    scores = law.ppf((np.arange(20_000) + 0.5) / 20_000).reshape(-1, 1)
    found = estimate(scores, "return_level_1000", replicates=100)
    assert found.value == pytest.approx(law.isf(0.001), abs=tolerance)
    assert found.low < found.value < found.high
    # The quantile beyond which the tail is fitted, and how much lies there.
    assert found.samples_beyond == 600


def test_scores_between_zero_and_one_are_fitted_on_the_logit():
    logits = stats.norm(-2, 1.5).ppf((np.arange(20_000) + 0.5) / 20_000).reshape(-1, 1)
    found = estimate(special.expit(logits), "return_level_1000", replicates=100)
    assert found.high < 1
    assert special.logit(found.value) == pytest.approx(stats.norm(-2, 1.5).isf(0.001), abs=0.1)


def test_a_shift_of_known_size_is_recovered():
    scores = np.random.default_rng(0).normal(size=(2000, 4))
    found = change(scores, scores + 0.7, "return_level_1000", replicates=100)
    np.testing.assert_allclose(found[:3], 0.7, atol=1e-9)


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (np.random.default_rng(0).normal(size=(200, 1)), "at least 50 of 25"),
        (np.tile(np.random.default_rng(0).normal(size=(200, 1)), 40), "at least 50 of 25"),
        (np.random.default_rng(0).geometric(0.4, size=(4000, 1)), "grades"),
    ],
)
def test_too_little_or_the_wrong_kind_is_not_identified(scores, why):
    found = estimate(scores, "return_level_1000", replicates=20)
    assert not found.identified
    assert why in found.why


def test_a_second_hump_is_not_taken_for_the_tail_of_the_first():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(4000, 1))
    scores[:12] = rng.normal(40, 1, size=(12, 1))
    found = estimate(scores, "return_level_1000", replicates=50)
    assert not found.identified
    assert "is not in the samples' own interval" in found.why
    assert estimate(scores[12:], "return_level_1000", replicates=50).identified


def test_the_interval_reaches_further_up_than_down_and_holds_the_truth():
    law = stats.genpareto(0.3)
    truth, held = law.isf(0.001), []
    for seed in range(60):
        scores = law.rvs((2000, 1), random_state=seed)
        found = estimate(scores, "return_level_1000", replicates=200, seed=seed)
        assert found.high - found.value > 0.9 * (found.value - found.low)
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.85


def test_shares_that_are_bad_when_low_are_mirrored_shares():
    rng = np.random.default_rng(8)
    shares = special.expit(3 + rng.normal(size=(1000, 1)) + rng.normal(size=(1000, 4)))
    low = estimate(shares, "return_level_1000", tail="lower", replicates=100)
    high = estimate(1 - shares, "return_level_1000", replicates=100)
    assert low.value == pytest.approx(1 - high.value, rel=1e-9) and 0 < low.low < low.value < low.high < 1
    assert (low.low, low.high) == pytest.approx((1 - high.high, 1 - high.low), rel=1e-6)
