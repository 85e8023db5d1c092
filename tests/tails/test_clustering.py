import numpy as np
import pytest

from pipeline.tails import tail_icc


def test_copies_have_icc_one(random_effects):
    scores = random_effects(np.random.default_rng(0), 300, 1)[0]
    assert tail_icc(np.repeat(scores, 4, axis=1), 1.0) == pytest.approx(1)


def test_independent_samples_have_icc_nought():
    scores = np.random.default_rng(0).normal(size=(20_000, 4))
    assert tail_icc(scores, 1.5) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("icc", "expected"), [(0.5, 0.12), (0.7, 0.26), (0.9, 0.54)])
def test_tail_icc_of_the_random_effects_model(random_effects, icc, expected):
    scores = random_effects(np.random.default_rng(1), 100_000, 4, icc=icc)[0]
    assert tail_icc(scores, 2.326) == pytest.approx(expected, abs=0.02)
    assert tail_icc(-scores, -2.326, tail="lower") == pytest.approx(tail_icc(scores, 2.326))


def test_unequal_k_does_not_bias(random_effects):
    rng = np.random.default_rng(2)
    scores = random_effects(rng, 60_000, 4)[0]
    full = tail_icc(scores, 1.0)
    scores[rng.random(scores.shape) < 0.4] = np.nan
    assert tail_icc(scores, 1.0) == pytest.approx(full, abs=0.02)


@pytest.mark.parametrize("scores", [np.zeros((5, 1)), np.zeros((5, 3)), np.full((5, 3), np.nan), np.ones((1, 3))])
def test_not_identified(scores):
    assert np.isnan(tail_icc(scores, 0.5))
