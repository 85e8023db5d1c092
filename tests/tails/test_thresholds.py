import numpy as np
import pytest

from pipeline.tails.thresholds import half_of, tail_thresholds


def test_they_lie_further_out_where_the_calibration_allows():
    many = np.arange(4000.0).reshape(1000, 4)
    assert [(many > u).mean() for u in tail_thresholds(many)] == [0.01, 0.002, 0.00025]
    few = np.arange(400.0).reshape(100, 4)
    assert [(few > u).mean() for u in tail_thresholds(few)] == [0.025, 0.01]
    assert [(few < u).mean() for u in tail_thresholds(few, tail="lower")] == [0.025, 0.01]
    assert tail_thresholds(np.arange(20.0)[:, None]) == ()


def test_a_grade_that_holds_the_worst_is_stepped_down_from():
    grades = np.repeat([1.0, 2.0, 3.0], [900, 60, 40])[:, None]
    assert tail_thresholds(grades) == (2.0,)
    assert tail_thresholds(-grades, tail="lower") == (-2.0,)
    assert tail_thresholds(np.zeros((500, 1))) == (0.0,)


def test_a_grade_that_holds_most_answers_is_no_tail():
    answers = np.repeat([0.0, 1.0], [700, 300])[:, None]
    assert tail_thresholds(answers) == (0.0,)
    assert tail_thresholds(answers, tail="lower") == (0.0,)  # nothing lies below


def test_half_of_the_prompts_whatever_their_order():
    scores = np.random.default_rng(0).normal(size=(101, 3))
    half = half_of(scores, seed=1)
    assert half.shape == (51, 3)
    shuffled = scores[np.random.default_rng(1).permutation(101)]
    np.testing.assert_array_equal(half_of(shuffled, seed=1), half)
    assert not np.array_equal(half_of(scores, seed=2), half)


@pytest.mark.parametrize("q", [0.99, 0.998])
def test_of_a_normal_population(q):
    found = tail_thresholds(np.random.default_rng(3).normal(size=(50_000, 4)))
    assert {0.99: found[0], 0.998: found[1]}[q] == pytest.approx({0.99: 2.326, 0.998: 2.878}[q], abs=0.05)
