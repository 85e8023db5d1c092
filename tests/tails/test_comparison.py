import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tails import compare

FAST = {"replicates": 40}


@pytest.fixture(name="panel", scope="module")
def _panel(random_effects):
    rng = np.random.default_rng(5)
    baseline, current = random_effects(rng, 1000, 4)
    calibration = random_effects(rng, 1000, 4)[0]
    turned = current - 0.3 * (current < 1)
    turned[np.arange(0, 200, 10)] = np.where(rng.random((20, 4)) < 0.5, 4.0, -1.0)
    return baseline, current, turned, calibration, np.arange(1000) % 10


def test_quiet_is_green_and_says_what_would_have_been_missed(panel):
    baseline, current, _, calibration, slices = panel
    found = compare(baseline, current, calibration=calibration, slices=slices, **FAST)
    assert found.verdict == "green"
    assert 1.2 < found.detectable.ratio < 3
    assert "80%" in found.summary()
    assert found.p_values["probe"] is None
    assert found.thresholds_from.startswith("calibration")


def test_drift_that_the_mean_calls_progress_is_amber_and_never_red(panel):
    baseline, _, turned, calibration, slices = panel
    found = compare(baseline, turned, calibration=calibration, slices=slices, **FAST)
    means = next(row for row in found.estimates if row.quantity == "mean")
    assert means.change.high < 0
    assert found.verdict == "amber"
    assert found.tests["worst_slice"].slice_id == 0
    assert max(found.p_values[name] for name in ("tail_max", "worst_slice", "bulk_tail")) < 0.01
    assert "fresh prompts" in found.summary()


def test_the_table_has_values_on_both_sides_and_changes_between(panel):
    baseline, _, turned, calibration, _ = panel
    rows = {
        (row.quantity, row.threshold): row
        for row in compare(baseline, turned, calibration=calibration, **FAST).estimates
    }
    assert len(rows) == 16
    for (quantity, _), row in rows.items():
        if quantity not in ("exceedance_ratio",):
            assert row.change.value == pytest.approx(row.current.value - row.baseline.value, abs=1e-9)
        assert row.change.low <= row.change.value <= row.change.high


def test_without_calibration_it_says_so(panel):
    found = compare(panel[0], panel[1], **FAST)
    assert "half of the baseline" in found.thresholds_from
    assert found.p_values["tail_max"] is not None
    assert found.p_values["worst_slice"] is None


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_of_prompts_and_samples_does_not_matter(messy, seed):
    baseline, current = messy(seed)
    rng = np.random.default_rng(seed)
    rows, slices = rng.permutation(len(current)), rng.integers(0, 3, len(current))
    probe = rng.normal(size=(2, len(current)))
    given_ = {"thresholds": [0.3, 1.2], **FAST}
    one = compare(baseline, current, slices=slices, probe=tuple(probe), **given_)
    shuffled = [rng.permuted(side[rows], axis=1) for side in (baseline, current)]
    two = compare(*shuffled, slices=slices[rows], probe=tuple(probe[:, rows]), **given_)
    assert one.p_values == two.p_values
    for first, second in zip(one.estimates, two.estimates, strict=True):
        np.testing.assert_array_equal([one[:5] for one in first[2:]], [one[:5] for one in second[2:]])
    assert one.verdict == two.verdict
    np.testing.assert_allclose(one.bulk_tail[:2], two.bulk_tail[:2])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_p_values_of_the_tests_follow_monotone_maps(messy, seed):
    baseline, current = messy(seed)
    slices = np.arange(len(current)) % 3
    here, there = (
        compare(scale(baseline), scale(current), slices=slices, calibration=scale(baseline), **FAST)
        for scale in (lambda scores: scores, np.exp)
    )
    for name in ("tail_max", "worst_slice"):
        assert here.p_values[name] == there.p_values[name]


@pytest.mark.parametrize(
    "scores",
    [np.zeros((400, 2)), np.full((400, 2), np.nan), np.ones((1, 4)), np.empty((0, 3)), np.zeros((3, 0))],
    ids=["constant", "missing", "one prompt", "no prompt", "no sample"],
)
def test_degenerate_panels_are_not_identified(scores):
    found = compare(scores, scores, slices=np.zeros(len(scores), int), **FAST)
    assert found.verdict == "not identified"
    assert set(found.p_values.values()) == {None}
    assert found.summary().startswith("not identified")
    assert found.panel_p is None


def test_a_new_kind_of_answer_is_seen_over_a_constant_baseline():
    after = np.zeros((400, 2))
    after[:12] = 1.0
    found = compare(np.zeros((400, 2)), after, **FAST)
    assert found.verdict == "amber"


def test_missing_samples_and_unequal_k(panel):
    baseline, _, turned, calibration, slices = panel
    gaps = baseline.copy()
    gaps[np.random.default_rng(0).random(gaps.shape) < 0.3] = np.nan
    gaps[7] = np.nan
    found = compare(
        gaps, np.concatenate([turned, turned[:, :1]], axis=1), calibration=calibration, slices=slices, **FAST
    )
    assert found.n_dropped == int(np.isnan(gaps).all(axis=1).sum())
    assert found.verdict == "amber"


def test_bad_input_is_refused(panel):
    baseline, current = panel[:2]
    with pytest.raises(InputError, match="1000, 999 prompts"):
        compare(baseline, current[1:])
    with pytest.raises(InputError, match="infinite"):
        compare(baseline, np.where(current > 2, np.inf, current))
    with pytest.raises(InputError, match="level"):
        compare(baseline, current, level=1.5)
    with pytest.raises(InputError, match="probe"):
        compare(baseline, current, probe=(np.zeros(3), np.zeros(3)))
    with pytest.raises(InputError, match="slices"):
        compare(baseline, current, slices=np.zeros(1000))


def test_one_test_at_the_level_is_a_suspicion(random_effects):
    # Of many quiet panels, some have one small p-value that all tests together do not find surprising.
    rng, seen = np.random.default_rng(5), set()
    for seed in range(120):
        before, after = random_effects(rng, 200, 2)
        found = compare(before, after, slices=np.arange(200) % 5, seed=seed, replicates=1)
        smallest = min(p for name, p in found.p_values.items() if p is not None and name != "bulk_tail")
        assert (found.verdict == "amber") == (smallest <= 0.05)
        seen.add((found.verdict, found.panel_p <= 0.05))
    assert ("amber", False) in seen and ("green", True) not in seen


def test_scores_that_went_missing_are_a_suspicion(random_effects):
    before, after = random_effects(np.random.default_rng(6), 1000, 4)
    thresholds = (2.326, 2.878)
    worse = np.where(after > 2.326, np.nan, after)  # a judge that refuses to rate the worst answers
    found = compare(before, worse, thresholds=thresholds, replicates=1)
    assert found.p_values["tail_max"] > 0.5 and found.hides and found.verdict == "amber"
    assert found.missing == (0.0, pytest.approx(np.isnan(worse).mean()))
    assert "of the samples have no score" in found.summary() and "got worse (" not in found.summary()
    both_reasons = compare(before, np.where(after < -1.5, np.nan, after + 1), thresholds=thresholds, replicates=1)
    assert re.match(r"amber: the tail may have got worse \(.*; .* no score", both_reasons.summary())
    # As many at the baseline, or a handful: nothing is hidden.
    at_random = np.where(np.random.default_rng(7).random(after.shape) < 0.02, np.nan, after)
    both = np.where(np.isnan(at_random), np.nan, before)
    for one, other in ((both, at_random), (before, np.where(np.arange(4000).reshape(1000, 4) < 5, np.nan, after))):
        calm = compare(one, other, thresholds=thresholds, replicates=1)
        assert not calm.hides and "no score" not in calm.summary()
