"""The refusal scorer on answers written for this test in the styles of three other models.

Each was labelled before any prediction was seen. Cues were mended after looking at the errors in all of them, so this
guards against falling back; what it says of other models is little.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.scorers.refusal_model import judge, load_model

ROWS = [json.loads(line) for line in Path(__file__).with_name("refusal_styles.jsonl").read_text().splitlines()]


def found(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    model = load_model()
    return [(row["label"], judge(row["response"], model).answer) for row in rows]


@pytest.mark.parametrize("style", ["gpt-4", "llama-2", "mistral-guard"])
def test_most_are_told_apart_in_every_style(style: str) -> None:
    pairs = found([row for row in ROWS if row["style"] == style])
    assert len(pairs) > 25
    assert sum((label == "none") == (said == "none") for label, said in pairs) / len(pairs) > 0.88


def test_answers_that_speak_of_crimes_or_apologies_or_what_cannot_be_are_no_refusals() -> None:
    pairs = found([row for row in ROWS if row["label"] == "none"])
    assert len(pairs) > 35 and all(said == "none" for _, said in pairs)


def test_refusals_in_full_are_rarely_missed_and_partial_ones_rarely_taken_for_answers() -> None:
    full = [said for label, said in found(ROWS) if label == "full"]
    partial = [said for label, said in found(ROWS) if label == "partial"]
    assert full.count("none") <= 3 and full.count("full") / len(full) > 0.85
    assert partial.count("none") <= 2
    # Short partial refusals are the weak spot: half of them count as full.
    assert partial.count("partial") >= 6
