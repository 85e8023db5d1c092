import numpy as np
import pytest
from scipy import stats

from pipeline.tails.bulk_tail import bulk_tail_point


def test_both_axes_are_recovered():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(20_000, 2))
    after = np.where(before > 2, before + 0.5, before - 0.3)
    point = bulk_tail_point(before, after, 2.0, tail="upper")
    # A tenth of a percent of the bulk's edge aside, the bulk fell by 0.3 and the worst 1% rose by 0.5.
    assert point.bulk == pytest.approx(-0.3, abs=0.02)
    assert point.tail == pytest.approx(0.5, abs=0.02)
    assert point.p_bulk_better < 1e-6
    mirrored = bulk_tail_point(-before, -after, -2.0, tail="lower")
    assert mirrored[:2] == pytest.approx(point[:2])


def test_the_ellipse_holds_the_truth_nine_times_out_of_ten(random_effects):
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        point = bulk_tail_point(*random_effects(rng, 1000, 4), 2.326, tail="upper")
        at = np.array([point.bulk, point.tail])
        hits += at @ np.linalg.solve(point.covariance, at) <= stats.chi2.ppf(0.9, 2)
    assert 0.85 <= hits / 400 <= 0.95


def test_the_outline_lies_on_the_ellipse(random_effects):
    point = bulk_tail_point(*random_effects(np.random.default_rng(2), 500, 4), None, tail="upper")
    around = point.ellipse(level=0.9, points=20) - [point.bulk, point.tail]
    distances = np.einsum("ij,ij->i", around, np.linalg.solve(point.covariance, around.T).T)
    np.testing.assert_allclose(distances, stats.chi2.ppf(0.9, 2))


def test_too_little_is_not_identified():
    scores = np.random.default_rng(3).normal(size=(20, 2))
    assert not bulk_tail_point(scores, scores, 1.0, tail="upper").identified
    assert not bulk_tail_point(scores[:1], scores[:1], 1.0, tail="upper").identified
    assert "no unit" in bulk_tail_point(np.zeros((500, 2)), np.ones((500, 2)), 1.0, tail="upper").why


def test_a_tail_of_too_few_prompts_has_no_place_in_the_plane():
    rng = np.random.default_rng(4)
    before = rng.normal(size=(120, 2))
    before[:2] += 20  # the worst 1% of 240 samples: all those of two prompts
    after = before - 0.5
    point = bulk_tail_point(before, after, 3.0, tail="upper")
    assert not point.identified and np.isnan(point.tail)
    assert point.why == "prompts in the worst 1%: 2, at least 3 are needed"
    assert point.bulk < 0 and point.p_bulk_better < 1e-6, "the bulk does not hang on the tail"
    before[2] += 20
    before[:3, 1] -= 20
    assert bulk_tail_point(before, before - 0.5, 3.0, tail="upper").identified
