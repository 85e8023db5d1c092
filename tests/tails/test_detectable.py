import numpy as np
import pytest
from scipy import stats

from pipeline.tails.detectable import smallest_detectable


def test_independent_samples_by_the_textbook():
    # 1% -> 3%, one-sided 5%, 80% power, no dependence at all: V = p (1-p) on both sides.
    rng = np.random.default_rng(0)
    before, after = rng.random(size=(2, 50_000, 1))
    found = smallest_detectable(before, after, 0.99, tail="upper", level=0.05)
    rate = found.baseline_rate * found.ratio
    assert found.baseline_rate == pytest.approx(0.01, abs=0.001)
    reach = stats.norm.isf(0.05) + stats.norm.isf(0.2)
    expected = reach**2 * (0.01 * 0.99 + rate * (1 - rate)) / (rate - found.baseline_rate) ** 2
    assert expected == pytest.approx(50_000, rel=0.1)


def test_a_rise_of_that_size_is_found_four_times_out_of_five(random_effects):
    rng, found = np.random.default_rng(1), 0
    first = random_effects(rng, 1000, 4)
    planned = smallest_detectable(*first, 2.326, tail="upper", level=0.05)
    lower = stats.norm.isf(stats.norm.sf(2.326) * planned.ratio)
    for _ in range(200):
        before, after = random_effects(rng, 1000, 4)
        differences = (after > lower).mean(axis=1) - (before > 2.326).mean(axis=1)
        found += stats.ttest_1samp(differences, 0, alternative="greater").pvalue <= 0.05
    assert 0.65 <= found / 200 <= 0.92


def test_it_says_so_when_nothing_could_be_found():
    tiny = smallest_detectable(np.zeros((2, 1)), np.zeros((2, 1)), 0.5, tail="upper", level=0.05)
    assert "too little" in tiny.sentence()
    assert (
        "too little"
        in smallest_detectable(np.zeros((9, 1)), np.ones((9, 1)), None, tail="upper", level=0.05).sentence()
    )


def test_more_prompts_find_less(random_effects):
    ratios = []
    for n_prompts in (200, 1000, 5000):
        sides = random_effects(np.random.default_rng(2), n_prompts, 4)
        ratios.append(smallest_detectable(*sides, 2.326, tail="upper", level=0.05).ratio)
    assert ratios[0] > ratios[1] > ratios[2] > 1
