import numpy as np
import pytest
from scipy import stats

from pipeline.tails import change, estimate
from pipeline.tails.exceedance import rate_change, rate_interval, rate_ratio


def panel(n_prompts, events, k=1):
    scores = np.zeros((n_prompts, k))
    scores[:events] = 1.0
    return scores


def test_one_sample_a_prompt_gives_jeffreys_interval():
    result = estimate(panel(400, 7), "exceedance", threshold=0.5)
    assert result.value == 7 / 400
    expected = stats.beta.ppf([0.025, 0.975], 7.5, 393.5)
    np.testing.assert_allclose([result.low, result.high], expected)
    assert (result.prompts_beyond, result.samples_beyond) == (7, 7)


def test_the_threshold_itself_is_not_beyond():
    assert estimate(panel(400, 7), "exceedance", threshold=1.0).value == 0


def test_copies_of_a_sample_do_not_narrow_the_interval():
    one = estimate(panel(400, 7), "exceedance", threshold=0.5)
    copies = estimate(panel(400, 7, k=8), "exceedance", threshold=0.5)
    assert (copies.low, copies.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_no_event_gives_an_upper_bound_of_prompts_not_samples():
    result = estimate(panel(300, 0, k=16), "exceedance", threshold=0.5)
    assert (result.value, result.low) == (0, 0)
    assert result.high == pytest.approx(stats.beta.ppf(0.975, 0.5, 300.5))
    assert "upper bound" in result.why


def test_nothing_but_events_reaches_one():
    low, high = rate_interval(np.ones(100), 100, 0.95)
    assert high == 1
    assert 0.9 < low < 1


def test_ratio_is_smoothed_by_half_an_event():
    result = change(panel(1000, 10), panel(1000, 31)[::-1], "exceedance_ratio", threshold=0.5)
    assert result.value == pytest.approx(31.5 / 10.5)
    assert 1 < result.low < 3 < result.high


def test_ratio_bounds_without_events_on_one_side():
    gone = change(panel(1000, 20), panel(1000, 0), "exceedance_ratio", threshold=0.5)
    assert (gone.value, gone.low) == (pytest.approx(0.5 / 20.5), 0)
    assert gone.high < 0.5
    assert "upper bound" in gone.why
    new = change(panel(1000, 0), panel(1000, 20), "exceedance_ratio", threshold=0.5)
    assert new.high == np.inf
    assert new.low > 2
    assert "not bounded above" in new.why


def test_ratio_without_any_event_is_not_identified():
    result = change(panel(100, 0), panel(100, 0), "exceedance_ratio", threshold=0.5)
    assert not result.identified
    assert "either side" in result.why


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    baseline = (rng.random(2000) < 0.05).astype(float)
    current = np.where(rng.random(2000) < 0.1, rng.random(2000) < 0.05, baseline)
    shuffled = rng.permutation(current)
    for compare in (rate_change, rate_ratio):
        _, low, high = compare(baseline, current, (2000, 2000), 0.95)
        _, wide_low, wide_high = compare(baseline, shuffled, (2000, 2000), 0.95)
        assert high - low < 0.6 * (wide_high - wide_low)


def test_threshold_must_be_given_and_identified():
    scores = panel(100, 5)
    assert "no threshold" in estimate(scores, "exceedance").why
    assert "not identified" in estimate(scores, "exceedance", threshold=np.nan).why
    assert "baseline" in estimate(scores, "exceedance_ratio", threshold=0.5).why
