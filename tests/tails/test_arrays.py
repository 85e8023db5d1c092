import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tails.arrays import as_scores, canonical, flatten, sample_counts


def test_infinite_scores_are_refused_with_their_row():
    scores = np.zeros((5, 2))
    scores[3, 1] = -np.inf
    with pytest.raises(InputError, match=r"current: 1 infinite values, the first in row 3"):
        as_scores(scores, "current")


@pytest.mark.parametrize("scores", [[["a", "b"]], [[1.0], [1.0, 2.0]], [{"score": 1}]])
def test_what_is_not_numbers_is_refused(scores):
    with pytest.raises(InputError, match="expected"):
        as_scores(scores)


def test_one_dimension_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"scores\[:, None\]"):
        as_scores(np.zeros(4))


def test_canonical_keeps_prompts_present_on_every_side_and_counts_the_others():
    nan = np.nan
    one = np.array([[2.0, 1.0], [nan, nan], [0.0, nan], [nan, nan]])
    two = np.array([[5.0], [6.0], [nan], [nan]])
    (left, right), n_dropped = canonical(one, two)
    np.testing.assert_array_equal(left, [[1.0, 2.0]])
    np.testing.assert_array_equal(right, [[5.0]])
    assert n_dropped == 2


def test_pairs_stay_together():
    baseline = np.array([[3.0], [1.0], [2.0]])
    (left, right), _ = canonical(baseline, baseline * 10)
    np.testing.assert_array_equal(right, left * 10)


def test_different_numbers_of_prompts_are_refused():
    with pytest.raises(InputError, match="3, 4 prompts"):
        canonical(np.zeros((3, 1)), np.zeros((4, 1)))


def test_every_prompt_weighs_one():
    (panel,), _ = canonical(np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.nan]]))
    samples = flatten(panel)
    np.testing.assert_array_equal(samples.values, [4, 3, 2, 1])
    assert samples.masses.sum() == pytest.approx(2)
    np.testing.assert_allclose(samples.fraction_above(2.0), [1 / 3, 1])
    np.testing.assert_allclose(samples.fraction_above(2.0, inclusive=True), [2 / 3, 1])


def test_sample_counts():
    assert sample_counts([np.array([[1.0, np.nan], [1.0, 2.0]]), np.empty((0, 3))]) == [2, 0]
