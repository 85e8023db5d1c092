from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RunError
from pipeline.inputs.recipe_fields import Recipe
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import REFINEMENTS, RESPONSES, TRAIN, to_table, write_table
from pipeline.training.rows import count_sources, training_rows

PROMPT = [{"role": "user", "content": "how do i paint ?"}]


def recipe(**changes: Any) -> Recipe:
    if changes.get("helpful_fraction"):
        changes["helpful_prompts"] = "helpful.jsonl"
    return Recipe(constitution="c.txt", **changes)


def write_round(run: RunDir, round_: int, *, refined: int = 12, dropped: int = 4, helpful: int = 40) -> None:
    """A round whose first rows are fit to be learnt from, and whose others are not."""
    rows = [
        {
            "prompt_id": f"p{i}",
            "sample": 0,
            "round": round_,
            "prompt": PROMPT,
            "revision_index": 0,
            "response": f"response {i}",
            "revision": f"revision {i} of round {round_}",
            "drop_reason": "unchanged" if i >= refined else None,
            "final": None if i >= refined else f"revision {i} of round {round_}",
        }
        for i in range(refined + dropped)
    ]
    folder = run.stage_dir(round_, "refine")
    write_table(folder / "refinements.parquet", [to_table(rows, REFINEMENTS)], REFINEMENTS)
    answers = [
        {
            "prompt_id": f"h{i}",
            "sample": 0,
            "round": round_,
            "prompt": PROMPT,
            "response": f"answer {i} of round {round_}",
            "drop_reason": "empty" if i % 10 == 8 else None,
            "finish_reason": "length" if i % 10 == 9 else "stop",
        }
        for i in range(helpful)
    ]
    write_table(run.stage_dir(round_, "generate") / "helpful.parquet", [to_table(answers, RESPONSES)], RESPONSES)


def distil(run: RunDir, round_: int, recipe_: Recipe) -> list[dict[str, Any]]:
    """What the round trains on, kept where later rounds look for it."""
    rows = training_rows(run, round_, recipe_, seed=0)
    path = run.stage_dir(round_, "distill") / "train.parquet"
    write_table(path, [to_table(rows, TRAIN)], TRAIN)
    return rows


def rounds(rows: list[dict[str, Any]]) -> Counter[int]:
    return Counter(row["round"] for row in rows)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    for round_, refined in ((1, 12), (2, 10), (3, 8)):
        write_round(run, round_, refined=refined)
    return run


def test_first_and_last_line_of_what_is_fit(run: RunDir) -> None:
    rows = training_rows(run, 1, recipe(), seed=0)
    assert [row["prompt_id"] for row in rows] == [f"p{i}" for i in range(12)]
    assert rows[3] == {
        "prompt": PROMPT,
        "completion": [{"role": "assistant", "content": "revision 3 of round 1"}],
        "prompt_id": "p3",
        "sample": 0,
        "round": 1,
        "source": "revision",
    }


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("replace", [{1: 12}, {2: 10}, {3: 8}]),
        ("accumulate", [{1: 12}, {1: 12, 2: 10}, {1: 12, 2: 10, 3: 8}]),
        ("anchor", [{1: 12}, {1: 12, 2: 10}, {1: 12, 3: 8}]),
    ],
)
def test_data_policies(run: RunDir, policy: str, expected: list[dict[int, int]]) -> None:
    assert [rounds(distil(run, r, recipe(data_policy=policy))) for r in (1, 2, 3)] == expected


@pytest.mark.parametrize(("fraction", "helpful"), [(0.0, 0), (0.2, 3), (0.5, 12), (0.7, 28)])
def test_helpful_examples_are_the_share_asked_for(run: RunDir, fraction: float, helpful: int) -> None:
    rows = training_rows(run, 1, recipe(helpful_fraction=fraction), seed=0)
    assert count_sources(rows) == ({"helpful": helpful} if helpful else {}) | {"revision": 12}
    assert helpful / len(rows) == pytest.approx(fraction, abs=0.5 / len(rows))


def test_helpful_examples_are_whole_answers_and_no_more_than_there_are(run: RunDir) -> None:
    rows = training_rows(run, 1, recipe(helpful_fraction=0.95), seed=0)
    helpful = [row["completion"][0]["content"] for row in rows if row["source"] == "helpful"]
    assert len(helpful) == 32 == len(set(helpful)), "40 less those empty or cut off"
    assert not any(int(text.split()[1]) % 10 in (8, 9) for text in helpful)


def test_too_few_helpful_examples_are_explained(
    run: RunDir, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)
    training_rows(run, 1, recipe(helpful_fraction=0.7), seed=0)
    assert not caplog.text
    training_rows(run, 1, recipe(helpful_fraction=0.95), seed=0)
    assert "needs 228 helpful answers, but of 40 only 32 can be trained on (cut_off 4, empty 4);" in caplog.text
    assert "`max_new_tokens`" in caplog.text
    caplog.clear()
    write_round(run, 1, helpful=9)
    training_rows(run, 1, recipe(helpful_fraction=0.7), seed=0)
    assert "of 9 only 8" in caplog.text and "`max_new_tokens`" not in caplog.text


def test_helpful_examples_are_drawn_by_the_seed(run: RunDir) -> None:
    def drawn(seed: int, round_: int = 1) -> list[str]:
        rows = training_rows(run, round_, recipe(helpful_fraction=0.3), seed=seed)
        return [row["prompt_id"] for row in rows if row["source"] == "helpful"]

    assert drawn(0) == drawn(0) and drawn(0) != drawn(1)
    assert set(drawn(0)) != set(drawn(0, round_=2)), "and anew in every round"


def test_accumulated_rounds_keep_the_helpful_examples_they_had(run: RunDir) -> None:
    settings = recipe(data_policy="accumulate", helpful_fraction=0.5)
    first, second = (distil(run, r, settings) for r in (1, 2))
    assert second[: len(first)] == first
    assert count_sources(second) == {"helpful": 22, "revision": 22}


def test_nothing_to_learn_from_says_why(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_round(run, 1, refined=0, dropped=5)
    with pytest.raises(RunError, match=r"no revision is fit.*unchanged 5.*keep_dropped"):
        training_rows(run, 1, recipe(helpful_fraction=0.5), seed=0)
