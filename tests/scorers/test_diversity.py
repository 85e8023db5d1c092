from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scorers.base import Sample, SampledPrompt
from pipeline.scorers.diversity import Diversity, distance

answers = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def asked(*token_ids: list[int]) -> SampledPrompt:
    return SampledPrompt([], "all", [Sample([], "", ids) for ids in token_ids])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 0.0),
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([1, 2, 3], [1, 2, 4], 1 - 2 / 4),
        ([1, 2, 3], [1, 2], 0.0),  # what follows the shorter does not count
        ([1, 2, 3, 4], [3, 1, 2], 1 - 1 / 5),
        ([7], [7, 8, 9], 0.0),
        ([7], [8], 1.0),
        ([1, 1, 1, 1], [1, 1, 2, 1], 1 - 2 / 4),
    ],
)
def test_distance(one: list[int], other: list[int], expected: float) -> None:
    assert distance(one, other) == pytest.approx(expected)
    assert distance(other, one) == pytest.approx(expected)


@given(answers, answers, st.permutations(range(6)))
def test_distance_is_symmetric_in_the_unit_interval_and_blind_to_names(
    one: list[int], other: list[int], names: list[int]
) -> None:
    found = distance(one, other)
    assert 0 <= found <= 1
    assert distance(other, one) == found
    assert distance([names[t] for t in one], [names[t] for t in other]) == found
    n = min(len(one), len(other))
    assert distance(one[:n], other[:n]) == found
    assert distance(one, one) == 0


@given(st.lists(answers, min_size=2, max_size=5), st.randoms())
def test_within_is_the_mean_over_pairs_in_any_order(found: list[list[int]], rng: object) -> None:
    (score,) = Diversity().score_prompts([asked(*found)])["diversity.within"]
    pairs = [distance(a, b) for i, a in enumerate(found) for b in found[:i]]
    assert score.value == pytest.approx(np.mean(pairs))
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    (again,) = Diversity().score_prompts([asked(*shuffled)])["diversity.within"]
    assert again.value == pytest.approx(score.value)


def test_the_mean_does_not_depend_on_how_many_samples_there_are() -> None:
    rng = np.random.default_rng(0)

    def mean(k: int) -> tuple[float, float]:
        prompts = [
            asked(*([*rng.integers(0, 4, rng.integers(2, 12)).tolist()] for _ in range(k))) for _ in range(1500)
        ]
        found = [score.value for score in Diversity().score_prompts(prompts)["diversity.within"]]
        return float(np.mean(found)), float(np.std(found)) / math.sqrt(len(found))

    (two, error_two), (six, error_six) = mean(2), mean(6)
    assert abs(two - six) < 4 * math.hypot(error_two, error_six)


def test_across_compares_first_answers_of_disjoint_neighbours() -> None:
    found = Diversity().score_prompts(
        [asked([1, 2], [8]), asked([1, 3], [9]), asked([5, 5]), asked([5, 5]), asked([6, 6])]
    )["diversity.across"]
    assert [score and score.value for score in found] == [pytest.approx(2 / 3), None, 0.0, None, None]
    assert [score is None for score in found] == [False, True, False, True, True]


def test_without_two_answers_there_is_a_reason_and_no_zero() -> None:
    columns = Diversity().score_prompts([asked([1, 2]), asked(), asked([1], [2]), asked([3])])
    within, across = columns["diversity.within"], columns["diversity.across"]
    assert [score.value for score in within] == [None, None, 1.0, None]
    assert all(score.reason for score in within if score.value is None)
    # A pair keeps its place whatever is missing: the same prompts have a row in every round.
    assert [score is None for score in across] == [False, True, False, True]
    assert across[0].value is None and across[0].reason
    assert across[2].value == 1.0


def test_no_prompts() -> None:
    assert Diversity().score_prompts([]) == {"diversity.within": [], "diversity.across": []}


def test_both_columns_are_bad_when_low() -> None:
    assert set(Diversity.columns.values()) == {"low"}
    assert list(Diversity().score_prompts([asked([1])])) == list(Diversity.columns)
