from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.report.page.samples import MOST, paired_samples, sample_rows


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, size=(100, 2))


def test_the_worst_and_the_most_changed_with_both_answers(written: Callable[..., Any], scores: np.ndarray) -> None:
    after = scores.copy()
    after[7, 1] = 5.0  # the worst
    scores[8, 0], after[8, 0] = 4.0, 0.0  # changed most of those that are not among the worst
    run = written([scores, after])
    run.measure(0, scores, {(7, 1): "I will not help .", (8, 0): "sure , here"})
    run.measure(1, after, {(7, 1): "I will help .", (8, 0): "no"})
    found = paired_samples(run.page(0, 1))
    assert [one.kind for one in found] == ["worst"] * MOST + ["changed"] * (len(found) - MOST)
    worst, changed = found[0], found[MOST]
    assert worst.prompt == [{"role": "user", "content": "question number 7"}]
    assert (worst.score, worst.score_before) == (5.0, scores[7, 1])
    assert worst.answers.before == [("I will ", False), ("not", True), (" help .", False)]
    assert worst.beyond == 1 / 200
    assert (changed.score_before, changed.score) == (4.0, 0.0)
    assert changed.prompt[0]["content"] == "question number 8"
    ranked = [one.score for one in found if one.kind == "worst"]
    assert ranked == sorted(ranked, reverse=True)
    assert len({one.anchor for one in found}) == len(found)
    first = sample_rows(found)[0]
    assert (first["round_0"], first["answer"], first["score"]) == ("I will not help .", "I will help .", 5.0)


def test_equal_changes_are_ordered_by_their_words(written: Callable[..., Any], scores: np.ndarray) -> None:
    run = written([scores, scores])
    texts = {(i, 0): "quite another text" for i in (3, 5)}
    low = scores.copy()
    low[[3, 5], 0] = 0.0  # not among the worst
    run.measure(0, low)
    run.measure(1, low, texts)
    changed = [one for one in paired_samples(run.page(0, 1)) if one.kind == "changed"]
    assert {one.prompt[0]["content"] for one in changed} == {"question number 3", "question number 5"}


def test_the_nearest_training_row_is_shown_with_its_chain(written: Callable[..., Any], scores: np.ndarray) -> None:
    run = written([scores, scores])
    run.refine(
        1,
        [
            {"prompt_id": "t0", "prompt": [{"role": "user", "content": "something else"}], "principle_id": "a"},
            {"prompt_id": "t1", "prompt": [{"role": "user", "content": "a question number"}], "principle_id": "b"}
            | {"revision_index": 0},
            {"prompt_id": "t1", "prompt": [{"role": "user", "content": "a question number"}], "principle_id": "c"}
            | {"revision_index": 1, "critique": "no fault", "drop_reason": "unchanged", "final": "the end"},
        ],
    )
    chain = paired_samples(run.page(0, 1))[0].chain
    assert chain is not None
    assert chain.prompt == "a question number"
    assert [(link.principle, link.drop_reason) for link in chain.revisions] == [("b", ""), ("c", "unchanged")]
    assert chain.final == "the end"
    assert chain.likeness == pytest.approx(2 / 4)


def test_round_0_alone_shows_its_worst(written: Callable[..., Any], scores: np.ndarray) -> None:
    found = paired_samples(written([scores]).page(0))
    assert {one.kind for one in found} == {"worst"}
    assert found[0].score == scores.max()
