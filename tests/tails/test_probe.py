import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tails.probe import probe_shift

ZEROS = np.zeros(2000)


def test_false_alarms_under_churn_that_lowers_the_bulk():
    rng = np.random.default_rng(0)
    for law in (rng.normal, lambda size: rng.standard_t(4, size=size)):
        p = [probe_shift(ZEROS, law(size=2000) - shift, flips=199).p_value for shift in (0.0, 0.5) for _ in range(200)]
        assert np.mean(np.array(p) <= 0.05) <= 0.08


def test_a_few_prompts_are_seen_where_the_mean_gets_better():
    rng, found, by_mean = np.random.default_rng(1), 0, 0
    for _ in range(40):
        change = rng.normal(-0.5, 1.1, size=2000)
        change[:20] += 4
        result = probe_shift(ZEROS, change, flips=199)
        found += result.p_value <= 0.05
        by_mean += result.column == "mean change"
    assert found >= 36
    assert by_mean == 0


def test_a_shift_of_all_prompts_is_seen_by_the_mean():
    result = probe_shift(ZEROS, np.random.default_rng(2).normal(0.2, 1, size=2000))
    assert result.p_value < 0.001
    assert result.column == "mean change"


def test_order_and_missing_prompts_do_not_matter():
    rng = np.random.default_rng(3)
    before, after = rng.normal(size=(2, 300))
    expected = probe_shift(before, after, flips=99)
    order = rng.permutation(300)
    assert probe_shift(before[order], after[order], flips=99) == expected
    assert probe_shift(np.append(before, np.nan), np.append(after, 9.0), flips=99) == expected


def test_too_little_is_not_identified():
    few = probe_shift(ZEROS[:5], ZEROS[:5])
    assert not few.identified
    assert "at least 20" in few.why
    assert not probe_shift(ZEROS, ZEROS).identified
    noise = np.random.default_rng(0).normal(size=2000)
    assert not probe_shift(noise, noise + 0.1).identified  # the same amount, but for rounding


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="shapes"):
        probe_shift(ZEROS, ZEROS[:3])
    with pytest.raises(InputError, match="infinite"):
        probe_shift(ZEROS, np.full(2000, -np.inf))
    with pytest.raises(InputError, match="log-probabilities"):
        probe_shift(["a"], ["b"])


def test_what_fell_less_than_the_rest_did_not_rise():
    # Refusals are learnt for nine topics of ten: the tenth rises against the median, and not at all.
    rng = np.random.default_rng(4)
    change = np.concatenate([rng.normal(-6, 0.5, size=900), rng.normal(-1, 0.1, size=100)])
    assert probe_shift(np.zeros(1000), change).p_value > 0.5
    change[-100:] += 4
    assert probe_shift(np.zeros(1000), change).p_value < 0.001


def test_sharpening_is_a_shift_of_all():
    # The same model at a lower temperature: every log-odds is a fifth further from zero.
    rng = np.random.default_rng(5)
    before = rng.normal(3.6, 0.2, size=250)
    after = 1.2 * before + rng.normal(0, 0.1, size=250)
    assert probe_shift(before, after).column == "mean change"
