import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tails import change, estimate
from pipeline.tails.arrays import canonical, flatten
from pipeline.tails.expected_shortfall import ShortfallChange
from pipeline.tails.resample import prompt_weights


def test_cvar_is_the_mean_of_the_worst_percent():
    scores = np.random.default_rng(0).normal(size=(500, 4))
    result = estimate(scores, "cvar_1pct")
    assert result.value == pytest.approx(np.sort(scores.ravel())[-20:].mean())
    assert result.low < result.value < result.high
    assert result.samples_beyond == 20


def test_a_fraction_of_a_sample_counts_as_a_fraction():
    # 150 samples: the worst percent is the largest sample and half of the next.
    scores = np.arange(150.0)[:, None]
    (panel,), _ = canonical(scores)
    value, _ = ShortfallChange(flatten(panel), None, 0.01).point()
    assert value == pytest.approx((149 + 0.5 * 148) / 1.5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.05, 0.1, 0.3]))
def test_replicates_are_those_of_the_resampled_panels(messy, seed, share):
    (baseline, current), _ = canonical(*messy(seed))
    if len(current) < 2:
        return
    weights = next(prompt_weights(len(current), 10, seed=seed))
    statistic = ShortfallChange(flatten(current), flatten(baseline), share)
    replicates = statistic.replicate(weights)
    for column, value, error in zip(weights.T, replicates.values, replicates.errors, strict=True):
        panels = [np.repeat(side, column.astype(int), axis=0) for side in (current, baseline)]
        expected = ShortfallChange(flatten(panels[0]), flatten(panels[1]), share).point()
        assert (value, error) == pytest.approx(expected, abs=1e-9)


def test_the_standard_error_is_that_of_repeated_panels(random_effects):
    rng = np.random.default_rng(4)
    points = []
    for _ in range(300):
        (panel,), _ = canonical(random_effects(rng, 400, 4)[0])
        points.append(ShortfallChange(flatten(panel), None, 0.05).point())
    values, errors = np.array(points).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.12)


def test_a_known_tail_shift_is_recovered(random_effects):
    baseline = random_effects(np.random.default_rng(6), 2000, 4)[0]
    beyond = baseline > np.quantile(baseline, 0.985)
    current = baseline - 0.2
    current[beyond] = baseline[beyond] + 1.0
    tail = change(baseline, current, "cvar_1pct")
    assert tail.value == pytest.approx(1.0)
    assert tail.low > 0.9
    assert change(baseline, current, "mean").high < 0
    assert change(baseline, current, "q50").high < 0


def test_too_few_prompts_in_the_tail_are_not_identified():
    small = estimate(np.random.default_rng(0).normal(size=(90, 1)), "cvar_1pct")
    assert not small.identified
    assert "90 samples" in small.why
    one_bad_prompt = np.zeros((100, 4))
    one_bad_prompt += np.random.default_rng(0).normal(scale=0.01, size=(100, 4))
    one_bad_prompt[0] = 9.0
    result = estimate(one_bad_prompt, "cvar_1pct")
    assert not result.identified
    assert "worst 1%: 2" in result.why  # the bad one, and the one at the quantile


def test_a_tail_of_equal_scores_has_no_reach_upwards():
    scores = np.zeros((1000, 1))
    scores[:13] = 1.0
    result = estimate(scores, "cvar_1pct")
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low < 1.0
    assert "do not vary" in result.why


def test_standard_error_and_degrees_of_freedom_by_hand():
    scores = np.random.default_rng(0).normal(size=(60, 2))
    (panel,), _ = canonical(scores)
    samples = flatten(panel)
    statistic = ShortfallChange(samples, None, 0.1)
    level = np.quantile(scores, 0.9, method="inverted_cdf")
    influence = np.maximum(scores - level, 0).mean(axis=1) / 0.1
    assert statistic.point()[1] == pytest.approx(influence.std(ddof=1) / np.sqrt(60))
    assert statistic.freedom() == (scores > level).any(axis=1).sum() - 1
    (wider,), _ = canonical(np.concatenate([scores] * 2, axis=1))
    assert ShortfallChange(flatten(wider), None, 0.1).freedom() == statistic.freedom()
