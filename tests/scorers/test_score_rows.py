from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from pipeline.scorers.base import Sample, SampledPrompt, Score, Worse
from pipeline.scorers.rows import score_rows


class Words:
    """By the sample: its words, and its tokens."""

    columns: ClassVar[dict[str, Worse]] = {"words": "both", "tokens": "both"}

    def __init__(self) -> None:
        self.seen: list[Sample] = []

    def __call__(self, samples: Sequence[Sample]) -> dict[str, list[Score]]:
        self.seen += samples
        tokens = [Score(float(len(s.token_ids))) if s.token_ids else Score(None, "no tokens") for s in samples]
        return {"words": [Score(float(len(s.response.split()))) for s in samples], "tokens": tokens}


class Spread:
    """By the prompt: how many different answers it got; nothing where the slice is `quiet`."""

    columns: ClassVar[dict[str, Worse]] = {"spread": "low"}

    def __init__(self) -> None:
        self.calls: list[list[SampledPrompt]] = []

    def score_prompts(self, prompts: Sequence[SampledPrompt]) -> dict[str, list[Score | None]]:
        self.calls.append(list(prompts))
        return {"spread": [self._score(prompt) for prompt in prompts]}

    def _score(self, prompt: SampledPrompt) -> Score | None:
        if prompt.slice == "quiet":
            return None
        answers = {sample.response for sample in prompt.samples}
        return Score(float(len(answers))) if answers else Score(None, "no usable answer")


def sampled(prompt: str, sample: int, response: str, **labels: Any) -> dict[str, Any]:
    usual = {"probe_set": "main", "slice": "s", "drop_reason": None, "finish_reason": "stop"}
    return {
        "prompt_id": prompt,
        "prompt": [{"role": "user", "content": f"about {prompt}"}],
        "sample": sample,
        "response": response,
        "token_ids": list(range(len(response))),
        **usual,
        **labels,
    }


ROWS = [
    sampled("a", 0, "one two"),
    sampled("a", 1, "one two three"),
    sampled("b", 0, "one", slice="t"),
    sampled("b", 1, "cut", drop_reason="cut_off", slice="t"),
    # The same prompt in another set is another prompt.
    sampled("b", 0, "else", probe_set="other"),
    sampled("b", 1, "else", probe_set="other"),
]


def values(rows: list[dict[str, Any]], column: str) -> list[tuple[str, str, int, float | None]]:
    return [(r["probe_set"], r["prompt_id"], r["sample"], r["score"]) for r in rows if r["scorer"] == column]


def test_a_row_a_sample_and_column() -> None:
    found = score_rows(ROWS, [Words()])
    assert len(found) == 12
    assert values(found, "words") == [
        ("main", "a", 0, 2.0),
        ("main", "a", 1, 3.0),
        ("main", "b", 0, 1.0),
        ("main", "b", 1, None),
        ("other", "b", 0, 1.0),
        ("other", "b", 1, 1.0),
    ]
    assert [r["score"] for r in found if r["scorer"] == "tokens"] == [7.0, 13.0, 3.0, None, 4.0, 4.0]
    assert [r["slice"] for r in found if r["scorer"] == "words"] == ["s", "s", "t", "t", "s", "s"]
    assert set(found[0]) == {"prompt_id", "sample", "probe_set", "slice", "scorer", "score", "reason"}


@pytest.mark.parametrize("reason", ["cut_off", "prompt_too_long"])
def test_a_dropped_sample_carries_its_reason_and_is_not_scored(reason: str) -> None:
    scorer = Words()
    rows = [sampled("a", 0, "what is left", drop_reason=reason), sampled("a", 1, "fine")]
    found = [r for r in score_rows(rows, [scorer]) if r["scorer"] == "words"]
    assert [(r["score"], r["reason"]) for r in found] == [(None, reason), (1.0, None)]
    assert [sample.response for sample in scorer.seen] == ["fine"]


def test_an_empty_answer_is_an_answer() -> None:
    # To say nothing is what the policy did; a scorer without a number for it says why itself.
    found = score_rows([sampled("a", 0, "", drop_reason="empty")], [Words()])
    assert [(r["scorer"], r["score"], r["reason"]) for r in found] == [
        ("words", 0.0, None),
        ("tokens", None, "no tokens"),
    ]


def test_a_scorer_sees_prompt_response_and_tokens() -> None:
    scorer = Words()
    score_rows(ROWS[:1], [scorer])
    assert scorer.seen == [
        Sample([{"role": "user", "content": "about a"}], "one two", list(range(7)), "s", "main", "stop")
    ]


def test_a_row_a_prompt_at_its_first_sample() -> None:
    found = score_rows(ROWS, [Spread()])
    assert values(found, "spread") == [("main", "a", 0, 2.0), ("main", "b", 0, 1.0), ("other", "b", 0, 1.0)]
    assert [row["slice"] for row in found] == ["s", "t", "s"]


def test_a_prompt_scorer_sees_the_usable_samples_of_one_probe_set_at_a_time() -> None:
    scorer = Spread()
    score_rows(ROWS, [scorer])
    seen = [[(p.slice, [s.response for s in p.samples]) for p in call] for call in scorer.calls]
    assert seen == [[("s", ["one two", "one two three"]), ("t", ["one"])], [("s", ["else", "else"])]]


def test_a_prompt_without_a_usable_sample_has_a_reason() -> None:
    rows = [sampled("a", 0, "x", drop_reason="cut_off"), sampled("a", 1, "y", drop_reason="cut_off")]
    (found,) = score_rows(rows, [Spread()])
    assert (found["sample"], found["score"], found["reason"]) == (0, None, "no usable answer")


def test_none_of_a_prompt_scorer_is_no_row() -> None:
    rows = [sampled("a", 0, "x", slice="quiet"), sampled("b", 0, "y"), sampled("c", 0, "z", slice="quiet")]
    assert values(score_rows(rows, [Spread()]), "spread") == [("main", "b", 0, 1.0)]


def test_scorers_come_one_after_another() -> None:
    found = score_rows(ROWS, [Spread(), Words()])
    assert [row["scorer"] for row in found] == ["spread"] * 3 + ["words"] * 6 + ["tokens"] * 6


def test_no_samples_are_no_scores() -> None:
    assert score_rows([], [Spread(), Words()]) == []


class Short:
    columns: ClassVar[dict[str, Worse]] = {"short": "high"}

    def __call__(self, samples: Sequence[Sample]) -> dict[str, list[Score]]:
        return {"short": [Score(1.0)] * (len(samples) - 1)}


def test_a_scorer_that_forgets_a_sample_is_not_believed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score_rows(ROWS, [Short()])
