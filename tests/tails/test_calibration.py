from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.tails import calibration, wilson


def test_by_hand() -> None:
    confidence = np.repeat([0.6, 0.9], 20)
    correct = np.concatenate([np.arange(20) < 12, np.arange(20) < 10]).astype(float)
    found = calibration(confidence, correct, bins=2)
    assert [(one.n, one.confidence, one.accuracy) for one in found.bins] == [
        (20, pytest.approx(0.6), pytest.approx(0.6)),
        (20, pytest.approx(0.9), pytest.approx(0.5)),
    ]
    assert (found.bins[1].low, found.bins[1].high) == wilson(0.5, 20)
    assert (found.confidence, found.accuracy) == (pytest.approx(0.75), pytest.approx(0.55))
    assert found.ece == pytest.approx((0 + 0.4) / 2)
    # Kumar et al.: accuracy (1 - accuracy) / (n - 1) is taken off every squared gap.
    squares = (0.0 - 0.24 / 19 + 0.16 - 0.25 / 19) / 2
    assert found.error == pytest.approx(np.sqrt(squares))
    # 10 of 20 or fewer where 18 are expected: one in 10,000.
    assert found.p_calibrated == pytest.approx(1 / 1001)
    assert found.low < found.error < found.high and found.low > 0.1


def test_chance_alone_makes_an_error_that_is_said() -> None:
    rng = np.random.default_rng(0)
    confidence = 0.5 + 0.5 * rng.random(200)
    found = [calibration(confidence, rng.random(200) < confidence, seed=i) for i in range(60)]
    mean = np.mean([one.ece for one in found])
    assert 0.06 < mean < 0.08
    assert np.mean([one.ece_if_calibrated for one in found]) == pytest.approx(mean, abs=0.01)
    assert np.mean([one.p_calibrated for one in found]) == pytest.approx(0.5, abs=0.12)
    assert sum(one.low > 0 for one in found) <= 4


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_its_interval_covers_whether_calibrated_or_not(strength: float) -> None:
    rng, n, hits = np.random.default_rng(1), 300, 0
    for i in range(100):
        confidence = 0.5 + 0.5 * rng.beta(3, 1, n)
        truth = confidence - strength * 0.4 * (confidence - 0.5)
        found = calibration(confidence, rng.random(n) < truth, seed=i)
        ends = np.cumsum([one.n for one in found.bins])
        order = np.argsort(confidence, kind="stable")
        gaps = [np.mean((confidence - truth)[part]) for part in np.split(order, ends[:-1])]
        error = np.sqrt(np.average(np.square(gaps), weights=[one.n for one in found.bins]))
        hits += found.low <= error <= found.high
    assert hits >= 90


def test_answers_that_were_all_right_do_not_prove_a_gap() -> None:
    found = calibration(np.full(30, 0.97), np.ones(30))
    assert found.low == 0 and found.high > 0.05 and found.p_calibrated > 0.3


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.booleans()), min_size=20, max_size=80), st.randoms()
)
def test_the_order_of_items_does_not_matter(items: list[tuple[float, bool]], random: object) -> None:
    first = calibration(*zip(*items, strict=True))
    second = calibration(*zip(*sorted(items), strict=True))
    assert [(one.n, one.accuracy) for one in first.bins] == [
        (one.n, pytest.approx(one.accuracy)) for one in second.bins
    ]
    assert sum(one.n for one in first.bins) == len(items)
    assert first.error == pytest.approx(second.error) and first.ece == pytest.approx(second.ece)
    assert 0 <= first.low <= first.error <= first.high and 0 < first.p_calibrated <= 1


def test_too_few_items_and_what_is_no_probability() -> None:
    few = calibration([0.5] * 19, [1.0] * 19)
    assert np.isnan(few.error) and few.why == "fewer than 20 items" and few.bins == ()
    with pytest.raises(InputError, match="per item"):
        calibration([0.5, 1.2], [0, 1])
