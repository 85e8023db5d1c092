from __future__ import annotations

from typing import Any

import pytest

from pipeline.report.content import content_against_truth, content_cells, content_missing, content_nats
from pipeline.report.critic_words import critic_report


def row(prompt_id: str, score: float | None, *, facts: int = 2, principle: str = "p", reason: str = "") -> Any:
    return {
        "prompt_id": prompt_id,
        "sample": 0,
        "revision_index": 0,
        "principle_id": principle,
        "n_facts": facts,
        "nothing": -0.5 if facts else None,
        "response": -0.1 if facts else None,
        "revision": -0.2 if facts else None,
        "score": score,
        "reason": reason,
    }


ROWS = [
    *(row(f"same{i}", 1.0, facts=0) for i in range(60)),
    *(row(f"kept{i}", 0.9) for i in range(30)),
    *(row(f"lost{i}", 0.1, principle="q") for i in range(10)),
    row("dumb", None, facts=0, reason="no log-probabilities"),
]


def found(cells: list[dict[str, Any]], name: str, principle: str | None = None) -> dict[str, Any]:
    (one,) = [cell for cell in cells if (cell["principle"], cell["rate"]) == (principle, name)]
    return one


def test_the_mean_counts_unchanged_answers_and_the_tail_does_not() -> None:
    cells = content_cells(ROWS)
    mean = found(cells, "content_kept")
    assert (mean["value"], mean["n"], mean["n_prompts"]) == (pytest.approx(0.88), 100, 100)
    assert 0.78 < mean["low"] < 0.82 and 0.91 < mean["high"] < 0.95
    changed = found(cells, "content_kept_if_changed")
    assert (changed["value"], changed["n"]) == (pytest.approx(0.7), 40)
    assert found(cells, "content_kept_worst_tenth")["value"] == pytest.approx(0.1)
    assert found(cells, "content_kept", "p")["value"] == pytest.approx((60 + 27) / 90)
    assert found(cells, "content_kept", "q")["value"] == pytest.approx(0.1)


def test_where_all_was_kept_the_interval_still_has_a_width() -> None:
    cells = content_cells(ROWS[:60])
    assert found(cells, "content_kept")["value"] == 1 and 0.93 < found(cells, "content_kept")["low"] < 0.95
    nothing = found(cells, "content_kept_if_changed")
    assert (nothing["value"], nothing["low"], nothing["n"]) == (None, None, 0) and nothing["why"]
    assert found(content_cells([]), "content_kept")["value"] is None


def test_what_is_missing_and_what_the_truth_says() -> None:
    assert content_missing(ROWS) == {"no log-probabilities": 1}
    lost = {(one["prompt_id"], 0, 0): one["score"] == 0.1 for one in ROWS}
    area = content_against_truth(ROWS, lost)
    assert (area["value"], area["n_positive"], area["n_negative"]) == (1.0, 10, 30), "of the changed ones alone"
    assert 0.8 < area["low"] < 1
    assert content_against_truth(ROWS, {})["value"] is None


def test_in_words() -> None:
    rates = ("false_alarm", "miss", "changed_innocent", "lost_content", "made_worse")
    share = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 101}
    cells = [{"principle": None, "rate": rate, **share} for rate in rates]
    cells += [cell for cell in content_cells(ROWS) if cell["principle"] is None]
    truth = {(one["prompt_id"], 0, 0): one["score"] == 0.1 for one in ROWS}
    content = {
        "n": 101,
        "missing": content_missing(ROWS),
        "nats": content_nats(ROWS),
        "against_truth": content_against_truth(ROWS, truth),
    }
    source = {"from": "the truth", "n": 101, "n_unknown": 0, "cells": cells, "content": content}
    record = {"round": 1, "critic": "base", "sources": [source], "rewrites_by_judge": None, "blind_spots": None}
    said = critic_report(record)
    assert "content kept by likelihood 88.0% [8" in said and "by the 40 changed ones 70.0%" in said
    assert "by the worst tenth of them at most 10.0%" in said
    assert "-0.50 with nothing shown, -0.10 with the answer, -0.20 with its rewrite" in said
    assert content_nats(ROWS[:60]) is None
    assert "content kept not known for 1: no log-probabilities" in said
    assert "tells the 10 that truly lost content from the 30 others: AUC 1.00" in said
