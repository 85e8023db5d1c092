from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tails import kappa, phi, rating_agreement


def test_shrout_and_fleiss_by_hand() -> None:
    # Four raters' first two columns of Shrout & Fleiss (1979), table 2, twice: MSB and MSW by the formulas.
    first, second = np.array([9, 6, 8, 7, 10, 6] * 2, float), np.array([2, 1, 4, 1, 5, 2] * 2, float)
    both = np.stack([first, second], 1)
    between = 2 * ((both.mean(1) - both.mean()) ** 2).sum() / 11
    within = ((both - both.mean(1, keepdims=True)) ** 2).sum() / 12
    assert rating_agreement(first, second).value == pytest.approx((between - within) / (between + within))


def test_equal_ratings_agree_wholly_and_a_shift_is_disagreement() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert rating_agreement(x, x).value == 1.0
    assert rating_agreement(x, x + 3).value < 0
    found = rating_agreement(x, x + np.random.default_rng(1).normal(size=50))
    assert found.low < found.value < found.high


def test_icc_of_known_variances_is_covered() -> None:
    rng, hits = np.random.default_rng(2), 0
    for seed in range(60):
        items = rng.normal(size=200) * np.sqrt(0.7)
        one, two = (items + rng.normal(size=200) * np.sqrt(0.3) for _ in range(2))
        found = rating_agreement(one, two, seed=seed)
        hits += found.low <= 0.7 <= found.high
    assert hits >= 51


def test_phi_and_kappa_of_a_table() -> None:
    a = np.array([1] * 20 + [1] * 5 + [0] * 10 + [0] * 15)
    b = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15)
    assert kappa(a, b).value == pytest.approx(0.4)
    assert phi(a, b).value == pytest.approx((20 * 15 - 5 * 10) / np.sqrt(25 * 25 * 30 * 20))
    assert phi(a, a).value == pytest.approx(1.0) and kappa(a, 1 - a).value == pytest.approx(-1.0)


def test_what_cannot_be_known_says_why() -> None:
    ones = np.ones(30)
    assert np.isnan(phi(ones, np.arange(30) % 2).value) and "always the same" in phi(ones, ones).why
    assert np.isnan(kappa(ones, ones).value)
    assert "do not vary" in rating_agreement(ones, ones).why
    assert "fewer than 10" in phi(ones[:5], ones[:5]).why
    for bad in (np.ones(29), np.full(30, np.nan), np.ones((30, 1))):
        with pytest.raises(InputError):
            phi(ones, bad)


@pytest.mark.parametrize(("table", "n"), [((0.5, 0.2, 0.1, 0.2), 80), ((0.9, 0.05, 0.03, 0.02), 130)])
def test_intervals_of_phi_and_kappa_cover_rare_outcomes_too(table: tuple[float, ...], n: int) -> None:
    rng = np.random.default_rng(3)
    both, one, other = table[3], table[2] + table[3], table[1] + table[3]
    truth = (both - one * other) / np.sqrt(one * (1 - one) * other * (1 - other))
    agreed, chance = table[0] + both, one * other + (1 - one) * (1 - other)
    beyond = (agreed - chance) / (1 - chance)
    hits = np.zeros(2)
    for seed in range(120):
        drawn = rng.choice(4, n, p=table)
        first, second = drawn // 2, drawn % 2
        for i, (found, true) in enumerate(
            [(phi(first, second, seed=seed), truth), (kappa(first, second, seed=seed), beyond)]
        ):
            hits[i] += np.isnan(found.value) or found.low <= true <= found.high
    assert (hits >= 0.9 * 120).all(), hits


def test_an_empty_cell_does_not_make_an_interval_narrow() -> None:
    # 18 of 132 faults came through, 3 came again, and never one of the 18: little is known of their relation.
    through, again = np.array([1] * 18 + [0] * 114), np.array([0] * 18 + [1] * 3 + [0] * 111)
    found = phi(through, again)
    assert found.low < found.value < 0 < found.high


def test_samples_of_one_prompt_count_together() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.random((2, 200)) < 0.3).astype(int)
    alone, fourfold = (np.arange(200).astype(str), np.repeat(np.arange(200), 4).astype(str))
    widths = {}
    for name, found in (
        ("items", phi(first, second)),
        ("groups of one", phi(first, second, groups=alone)),
        ("the same four times", phi(np.repeat(first, 4), np.repeat(second, 4), groups=fourfold)),
        ("as if independent", phi(np.repeat(first, 4), np.repeat(second, 4))),
    ):
        widths[name] = found.high - found.low
    assert widths["groups of one"] == pytest.approx(widths["items"], rel=0.1)
    assert widths["the same four times"] == pytest.approx(widths["items"], rel=0.1)
    assert widths["as if independent"] < 0.6 * widths["items"]


def test_verdicts_are_zero_or_one() -> None:
    with pytest.raises(InputError, match="0 or 1"):
        phi(np.full(20, 0.5), np.ones(20))
