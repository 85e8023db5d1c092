from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.tails.amplification import share_ratio
from pipeline.tails.boilerplate import discoveries, sign_tests


def test_sign_tests_are_the_exact_binomial_ones() -> None:
    rose, fell = np.array([0, 3, 10, 2, 0]), np.array([0, 0, 1, 9, 4])
    wanted = [1.0] + [
        stats.binomtest(int(r), int(r + f), alternative="greater").pvalue
        for r, f in zip(rose[1:], fell[1:], strict=True)
    ]
    assert sign_tests(rose, fell) == pytest.approx(wanted)


def test_discoveries_are_benjamini_and_hochbergs() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.random(80), rng.random(20) * 1e-3])
    assert (discoveries(p) == (stats.false_discovery_control(p) <= 0.05)).all()
    assert discoveries(np.array([])).size == 0
    assert not discoveries(np.array([0.2, 0.9])).any()


def test_false_discoveries_are_few() -> None:
    rng, shares = np.random.default_rng(1), []
    for _ in range(300):
        p = np.concatenate([rng.random(90), rng.random(10) * 1e-4])
        found = discoveries(p)
        shares.append(found[:90].sum() / max(found.sum(), 1))
    assert np.mean(shares) <= 0.06


def test_a_ratio_of_shares_by_hand() -> None:
    before, after = np.repeat([1.0, 0.0], [20, 80])[:, None], np.repeat([1.0, 0.0], [60, 140])[:, None]
    found = share_ratio(before, after)
    assert (found.before, found.after) == (0.2, 0.3)
    assert found.value == pytest.approx(1.5)
    reach = 1.96 * np.sqrt(1 / 20 - 1 / 100 + 1 / 60 - 1 / 200)
    assert found.low == pytest.approx(1.5 * np.exp(-reach), rel=0.05)
    assert found.high == pytest.approx(1.5 * np.exp(reach), rel=0.05)


def test_none_bounds_the_ratio_at_one_end() -> None:
    none, some = np.zeros((100, 1)), np.repeat([1.0, 0.0], [30, 70])[:, None]
    rising, falling, neither = share_ratio(none, some), share_ratio(some, none), share_ratio(none, none)
    assert rising.value == rising.high == np.inf and rising.low > 3
    assert falling.value == falling.low == 0 and falling.high < 0.3
    assert np.isnan(neither.value) and (neither.low, neither.high) == (0, np.inf)


def test_the_interval_of_a_ratio_holds_the_truth() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(1000):
        # Samples of a prompt are alike.
        rates = [rng.beta(a, 4, size=(n, 1)) for a, n in ((1, 150), (2, 120))]
        sides = [(rng.random((len(rate), 4)) < rate).astype(float) for rate in rates]
        found = share_ratio(*sides)
        held += found.low <= (2 / 6) / (1 / 5) <= found.high
    assert 0.925 <= held / 1000 <= 0.985


def test_texts_are_needed_on_both_sides() -> None:
    with pytest.raises(ValueError, match="both sides"):
        share_ratio(np.full((2, 1), np.nan), np.ones((2, 1)))
