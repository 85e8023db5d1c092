from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tails import roc_area, wilson


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=5, max_size=30), st.lists(st.integers(0, 5), min_size=5, max_size=30))
def test_the_area_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    found = roc_area([*positive, *negative], [True] * len(positive) + [False] * len(negative))
    pairs = np.array(positive)[:, None] - np.array(negative)[None]
    assert found.value == pytest.approx(float((pairs > 0).mean() + (pairs == 0).mean() / 2))
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.high - found.low > 0.05
    assert (found.n_positive, found.n_negative) == (len(positive), len(negative))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_its_interval_covers(shift: float) -> None:
    from scipy.stats import norm

    rng, hits = np.random.default_rng(3), 0
    truth = norm.cdf(shift / np.sqrt(2))
    for _ in range(400):
        scores = np.concatenate([rng.normal(shift, 1, 25), rng.normal(0, 1, 60)])
        found = roc_area(scores, np.arange(85) < 25)
        hits += found.low <= truth <= found.high
    assert 0.925 <= hits / 400 <= 0.99


def test_too_few_of_a_kind_and_what_is_no_score() -> None:
    found = roc_area([1.0] * 10, [True] * 4 + [False] * 6)
    assert np.isnan(found.value) and found.why == "fewer than 5 items of a kind"
    with pytest.raises(InputError, match="a score and a kind"):
        roc_area([1.0, np.nan], [True, False])


def test_wilson() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I.
    known = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)]
    for count, n, low, high in known:
        assert wilson(count / n, n) == pytest.approx((low, high), abs=1e-4)
    assert np.isnan(wilson(np.nan, 10)).all() and np.isnan(wilson(0.5, 0)).all()


def test_wilson_covers_means_of_numbers_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    for a, b in ((0.5, 0.5), (5, 0.2)):
        means = [wilson(float(rng.beta(a, b, 60).mean()), 60) for _ in range(300)]
        assert np.mean([low <= a / (a + b) <= high for low, high in means]) >= 0.95
