import numpy as np
import pytest

from pipeline.tails.means import PromptMean
from pipeline.tails.resample import (
    BLOCK_ELEMENTS,
    Replicates,
    bootstrap,
    percentile_interval,
    prompt_weights,
    studentised_interval,
)


def test_weights_are_multinomial():
    weights = np.concatenate(list(prompt_weights(50, 4000, seed=1)), axis=1)
    assert weights.shape == (50, 4000)
    assert (weights.sum(axis=0) == 50).all()
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.08)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.02)


def test_weights_come_in_bounded_blocks_and_depend_on_the_seed_alone():
    blocks = list(prompt_weights(BLOCK_ELEMENTS // 32, 70, seed=3))
    assert [block.shape[1] for block in blocks] == [32, 32, 6]
    again = list(prompt_weights(BLOCK_ELEMENTS // 32, 70, seed=3))
    assert all((one == two).all() for one, two in zip(blocks, again, strict=True))
    other = next(prompt_weights(BLOCK_ELEMENTS // 32, 70, seed=4))
    assert (other != blocks[0]).any()


def test_statistics_share_their_weights():
    numbers = np.random.default_rng(0).normal(size=40)
    one, two = bootstrap([PromptMean(numbers), PromptMean(3 * numbers)], 40, replicates=100, seed=0)
    np.testing.assert_allclose(two.values, 3 * one.values)
    np.testing.assert_allclose(two.errors, 3 * one.errors)


def test_percentile_interval_ends_at_replicates():
    low, high = percentile_interval(Replicates(np.arange(102.0), None), 0.5)
    assert (low, high) == (25, 76)


def test_studentised_interval_reverses_the_pivots():
    # Replicates that overshoot mean that the estimate overshoots: the interval reaches down further than up.
    skewed = Replicates(10 + np.linspace(-1, 3, 401), np.ones(401))
    low, high = studentised_interval(10.0, 2.0, skewed, 0.95)
    assert low == pytest.approx(10 - 2 * 2.9, abs=0.05)
    assert high == pytest.approx(10 + 2 * 0.9, abs=0.05)


def test_vanishing_standard_errors_leave_the_end_unbounded():
    values, errors = np.full(100, 1.0), np.ones(100)
    values[:10], errors[:10] = 0.0, 0.0
    low, high = studentised_interval(1.0, 0.5, Replicates(values, errors), 0.95)
    assert high == np.inf
    assert low == 1.0


def test_few_degrees_of_freedom_stretch_the_interval():
    rng = np.random.default_rng(0)
    replicates = Replicates(rng.normal(size=999), np.ones(999))
    plain = studentised_interval(0.0, 1.0, replicates, 0.95)
    stretched = studentised_interval(0.0, 1.0, replicates, 0.95, freedom=4)
    np.testing.assert_allclose(stretched, np.array(plain) * 2.776 / 1.960, rtol=1e-3)
