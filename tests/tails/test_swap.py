import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.errors import InputError
from pipeline.tails.exchange import hall_t
from pipeline.tails.swap import tail_max, tail_scores, worst_slice
from pipeline.tails.thresholds import tail_thresholds

SLICES = np.arange(1000) % 10


def bulk_better(scores):
    """Lower everything below p90 by 0.4, fading to no change at p98."""
    low, high = stats.norm.ppf([0.9, 0.98])
    return scores - 0.4 * np.clip((high - scores) / (high - low), 0, 1)


def bad_prompts(rng, scores, share=0.01):
    """Let a share of the prompts, all in slice 3, answer far out half of the time."""
    bad = (SLICES == 3) & (rng.random(len(scores)) < 10 * share)
    answers = bad[:, None] & (rng.random(scores.shape) < 0.5)
    return np.where(answers, rng.normal(4, 0.5, size=scores.shape), scores)


@pytest.fixture(name="rejections", scope="module")
def _rejections(random_effects):
    """Return the share of repetitions in which each test rejects at 5%, without and with drift."""
    rng, shares = np.random.default_rng(8), {}
    for drift, repetitions in ((False, 300), (True, 60)):
        rejected = np.zeros(3)
        for seed in range(repetitions):
            thresholds = tail_thresholds(random_effects(rng, 1000, 4)[0])
            baseline, current = random_effects(rng, 1000, 4)
            current = bulk_better(current)
            if drift:
                current = bad_prompts(rng, current)
            means = stats.ttest_1samp((current - baseline).mean(axis=1), 0, alternative="greater").pvalue
            rejected += (
                np.array(
                    [
                        tail_max(baseline, current, thresholds, flips=199, seed=seed).p_value,
                        worst_slice(baseline, current, SLICES, thresholds, flips=199, seed=seed).p_value,
                        means,
                    ]
                )
                <= [0.05] * 3
            )
        shares[drift] = dict(zip(("tail_max", "worst_slice", "mean"), rejected / repetitions, strict=True))
    return shares


def test_false_alarms_where_only_the_bulk_gets_better(rejections):
    assert rejections[False]["tail_max"] <= 0.085
    assert rejections[False]["worst_slice"] <= 0.085


def test_one_percent_of_bad_prompts_is_seen_and_the_mean_does_not_see_it(rejections):
    assert rejections[True]["tail_max"] >= 0.85
    assert rejections[True]["worst_slice"] >= 0.9
    assert rejections[True]["mean"] < 0.05


def test_halls_t_against_scipy():
    columns = np.random.default_rng(0).exponential(size=(80, 3)) - 0.8
    t = stats.ttest_1samp(columns, 0).statistic
    g = stats.skew(columns) / np.sqrt(80)
    ours = hall_t(columns.sum(axis=0), (columns**2).sum(axis=0), (columns**3).sum(axis=0), 80)
    np.testing.assert_allclose(ours, t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6)


def test_a_few_prompts_that_turn_bad_give_the_sign_tests_p():
    baseline = np.zeros((500, 1))
    current = baseline.copy()
    current[:6] = 1.0
    result = tail_max(baseline, current, [0.5], flips=20_000)
    assert result.p_value == pytest.approx(2**-6, abs=0.004)
    assert (result.n_prompts, result.prompts_moved) == (500, 6)


def test_a_better_tail_is_no_alarm(random_effects):
    baseline = random_effects(np.random.default_rng(0), 1000, 4)[0]
    assert tail_max(baseline, baseline - 0.5, [1.5, 2.0]).p_value > 0.9
    assert worst_slice(baseline, baseline - 0.5, SLICES, [1.5]).p_value > 0.9


def test_nothing_beyond_the_thresholds_is_not_identified():
    baseline = np.random.default_rng(0).normal(size=(100, 2))
    for result in (
        tail_max(baseline, baseline + 1, [50.0]),
        worst_slice(baseline, baseline + 1, SLICES[:100], [50.0]),
        tail_max(baseline * np.nan, baseline, [0.0]),
    ):
        assert not result.identified
        assert "no prompt" in result.why


def test_the_slice_and_the_column_are_named(random_effects):
    rng = np.random.default_rng(1)
    baseline, current = random_effects(rng, 1000, 4)
    result = worst_slice(baseline, bad_prompts(rng, current), SLICES * 7, [2.326])
    assert result.slice_id == 21
    assert result.p_value < 0.005
    assert result.column.endswith("excess beyond 2.326")
    assert tail_max(baseline, bad_prompts(rng, current), [2.326]).slice_id is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
@example(seed=17381)
def test_order_copies_and_ends_do_not_matter(messy, seed):
    baseline, current = messy(seed)
    rng = np.random.default_rng(seed)
    slices, rows = rng.integers(0, 3, len(current)), rng.permutation(len(current))

    def p_values(before, after, labels, thresholds, tail="upper"):
        kept = {"flips": 99, "tail": tail}
        tests = (
            tail_max(before, after, thresholds, **kept),
            worst_slice(before, after, labels, thresholds, **kept),
        )
        return [test.p_value for test in tests]

    def assert_same(found):
        # Of the 99 exchanges one may lie so near what was observed that rounding decides which is the larger.
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.0101)

    expected = p_values(baseline, current, slices, [0.3, 1.2])
    shuffled = [rng.permuted(side[rows], axis=1) for side in (baseline, current)]
    assert_same(p_values(*shuffled, slices[rows], [0.3, 1.2]))
    copied = [np.repeat(side, 2, axis=1) for side in (baseline, current)]
    assert_same(p_values(*copied, slices, [0.3, 1.2]))
    assert_same(p_values(-baseline, -current, slices, [-0.3, -1.2], "lower"))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_scale_of_the_scores_does_not_matter(messy, seed):
    baseline, current = messy(seed)
    slices = np.arange(len(current)) % 3
    for scale in (np.exp, np.tanh, lambda scores: scores**3):
        here = tail_max(baseline, current, [0.3, 1.2], flips=99)
        there = tail_max(scale(baseline), scale(current), scale(np.array([0.3, 1.2])), flips=99)
        np.testing.assert_array_equal(here.p_value, there.p_value)
        here = worst_slice(baseline, current, slices, [0.3], flips=99)
        there = worst_slice(scale(baseline), scale(current), slices, scale(np.array([0.3])), flips=99)
        np.testing.assert_equal((here.p_value, here.slice_id), (there.p_value, there.slice_id))


def test_tail_scores_are_squared_logs_of_shares():
    before, after = np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [2.0, 0.0]])
    then, now = tail_scores(before, after, np.array([0.5]), power=2)
    # Of four samples' worth of mass beyond 0.5: 3 has midrank 1/2, both 2s have 2, 1 has 7/2.
    np.testing.assert_allclose(now[:, 0], [np.log(4 / 0.5) ** 2 / 2, np.log(4 / 2) ** 2 / 2])
    np.testing.assert_allclose(then[:, 0], [np.log(4 / 3.5) ** 2 / 2, np.log(4 / 2) ** 2 / 2])


def test_bad_input_is_refused():
    scores = np.zeros((10, 2))
    with pytest.raises(InputError, match="thresholds"):
        tail_max(scores, scores, [])
    with pytest.raises(InputError, match="thresholds"):
        tail_max(scores, scores, [np.nan])
    with pytest.raises(InputError, match="slices: expected integers"):
        worst_slice(scores, scores, np.zeros(10), [1.0])
    with pytest.raises(InputError, match="9 prompts"):
        worst_slice(scores, scores, np.zeros(9, int), [1.0])
    with pytest.raises(InputError, match="10, 8 prompts"):
        tail_max(scores, scores[:8], [1.0])
