from __future__ import annotations

import numpy as np
import pytest

from pipeline.tails.prevalence import Counted, prevalence


def test_a_faultless_detector_is_believed() -> None:
    flags = np.repeat([1.0, 0.0], [30, 170])[:, None]
    found = prevalence(flags, Counted(10_000, 10_000), Counted(10_000, 10_000))
    assert found.detected == 0.15
    assert found.value == pytest.approx(0.15)
    assert found.low < 0.15 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.15 * 0.85 / 200), rel=0.05)


def test_the_estimate_by_hand() -> None:
    flags = np.repeat([1.0, 0.0], [40, 60])[:, None]
    found = prevalence(flags, Counted(90, 100), Counted(80, 100))
    assert found.value == pytest.approx((0.4 + 0.8 - 1) / (0.9 + 0.8 - 1))


def test_the_interval_holds_the_truth() -> None:
    rng, held, runs = np.random.default_rng(0), 0, 3000
    truth, se, sp = 0.2, 0.85, 0.95
    for _ in range(runs):
        has = rng.random(400) < truth
        flags = np.where(has, rng.random(400) < se, rng.random(400) > sp).astype(float)[:, None]
        found = prevalence(flags, Counted(rng.binomial(80, se), 80), Counted(rng.binomial(120, sp), 120))
        held += found.low <= truth <= found.high
    assert 0.94 <= held / runs <= 0.98


def test_samples_of_a_prompt_count_once_when_they_are_the_same() -> None:
    one = np.repeat([1.0, 0.0], [30, 70])[:, None]
    rates = Counted(90, 100), Counted(90, 100)
    single, repeated = prevalence(one, *rates), prevalence(np.repeat(one, 8, axis=1), *rates)
    assert repeated == pytest.approx(single)
    missing = np.column_stack([one, np.full(100, np.nan)])
    assert prevalence(missing, *rates) == pytest.approx(single)


def test_corrected_shares_stay_shares() -> None:
    none = prevalence(np.zeros((50, 1)), Counted(9, 10), Counted(8, 10))
    assert none.value == none.low == 0 < none.high < 0.2
    every = prevalence(np.ones((50, 1)), Counted(9, 10), Counted(8, 10))
    assert every.value == every.high == 1


@pytest.mark.parametrize(
    ("flags", "sensitivity", "specificity"),
    [
        (np.full((3, 1), np.nan), Counted(9, 10), Counted(9, 10)),
        (np.ones((3, 1)), Counted(0, 0), Counted(9, 10)),
        (np.ones((3, 1)), Counted(5, 10), Counted(5, 10)),
    ],
)
def test_what_cannot_be_corrected(flags: np.ndarray, sensitivity: Counted, specificity: Counted) -> None:
    with pytest.raises(ValueError, match=r"prevalence needs|no better than chance"):
        prevalence(flags, sensitivity, specificity)
