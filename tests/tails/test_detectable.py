import numpy as np
import pytest
from scipy import stats

from pipeline.tails.detectable import smallest_detectable
from pipeline.tails.swap import tail_max


def test_independent_samples_by_the_textbook():
    # 1% -> 3%, one-sided 5% in each of two columns, 80% power, no dependence at all: exponential scores have a mean
    # square of 2, so V is about 2 p on both sides.
    rng = np.random.default_rng(0)
    before, after = rng.random(size=(2, 50_000, 1))
    found = smallest_detectable(before, after, [0.99], tail="upper", level=0.05)
    rate = found.baseline_rate * found.ratio
    assert found.baseline_rate == pytest.approx(0.01, abs=0.001)
    reach = stats.norm.isf(0.025) + stats.norm.isf(0.2)
    expected = reach**2 * 2 * (0.01 * 0.99 + rate * (1 - rate)) / (rate - found.baseline_rate) ** 2
    assert expected == pytest.approx(50_000, rel=0.1)


@pytest.mark.parametrize("n_thresholds", [1, 3])
def test_a_rise_of_that_size_is_found_four_times_out_of_five(random_effects, n_thresholds):
    thresholds = tuple(stats.norm.isf([0.01, 0.002, 0.0004][:n_thresholds]))
    rng = np.random.default_rng(1)
    planned = [
        smallest_detectable(*random_effects(rng, 1000, 4), thresholds, tail="upper", level=0.05).ratio
        for _ in range(21)
    ]
    ratio, found = float(np.median(planned)), 0
    for seed in range(200):
        before, after = random_effects(rng, 1000, 4)
        # Beyond the threshold there is so much more, no further out than before; what lay below it stays below.
        share = stats.norm.sf(after)
        rose = share <= stats.norm.sf(thresholds[0]) * ratio
        after = np.where(rose, stats.norm.isf(share / ratio), np.minimum(after, thresholds[0]))
        found += tail_max(before, after, thresholds, flips=1999, seed=seed).p_value <= 0.05
    assert 0.68 <= found / 200 <= 0.9


def test_it_says_so_when_nothing_could_be_found():
    tiny = smallest_detectable(np.zeros((2, 1)), np.zeros((2, 1)), [0.5], tail="upper", level=0.05)
    assert "too little" in tiny.sentence()
    assert (
        "too little" in smallest_detectable(np.zeros((9, 1)), np.ones((9, 1)), [], tail="upper", level=0.05).sentence()
    )


def test_more_prompts_find_less(random_effects):
    ratios = []
    for n_prompts in (200, 1000, 5000):
        sides = random_effects(np.random.default_rng(2), n_prompts, 4)
        ratios.append(smallest_detectable(*sides, [2.326], tail="upper", level=0.05).ratio)
    assert ratios[0] > ratios[1] > ratios[2] > 1
