from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.report.critic import (
    Chain,
    Verdict,
    chains_of,
    critic_cells,
    repeated_errors,
    shared_blind_spots,
    text_after,
    verdicts_of,
)
from pipeline.scorers.critic import Truth


def row(prompt_id: str, **values: Any) -> dict[str, Any]:
    made = {"prompt_id": prompt_id, "sample": 0, "slice": "s", "principle_id": "p", "revision_index": 0, "prompt": []}
    return {**made, "response": "a", "critique": "no fault .", "revision": "a", "drop_reason": None, **values}


def verdict(prompt_id: str, objects: bool, faulty: bool, principle: str = "p", mended: bool | None = True) -> Verdict:
    truth = Truth(faulty, changed=objects, lost=objects and not faulty, worse=False, mended=mended if faulty else None)
    return Verdict(prompt_id, 0, "s", principle, objects, truth)


def cell(cells: list[dict[str, Any]], name: str, principle: str | None = None) -> dict[str, Any]:
    (found,) = [one for one in cells if (one["principle"], one["rate"]) == (principle, name)]
    return found


def test_rates_are_counted_where_they_apply_by_principle() -> None:
    found = [verdict(str(i), objects=i < 3, faulty=False) for i in range(30)]
    found += [verdict(f"f{i}", objects=i >= 5, faulty=True, principle="q", mended=i >= 10) for i in range(20)]
    cells = critic_cells(found)
    assert {one["principle"] for one in cells} == {None, "p", "q"}
    assert (cell(cells, "false_alarm")["value"], cell(cells, "false_alarm")["n"]) == (pytest.approx(0.1), 30)
    assert (cell(cells, "miss")["value"], cell(cells, "miss")["n"]) == (pytest.approx(0.25), 20)
    assert cell(cells, "not_mended", "q")["value"] == pytest.approx(0.5)
    assert cell(cells, "lost_content", "p")["value"] == pytest.approx(0.1)
    assert cell(cells, "miss", "p")["value"] is None and cell(cells, "miss", "p")["n"] == 0
    alarm = cell(cells, "false_alarm")
    assert alarm["low"] < 0.1 < alarm["high"] < 0.3
    never = cell(cells, "made_worse")
    assert never["value"] == 0 == never["low"] and 0 < never["high"] < 0.15


def test_intervals_cover_with_several_critiques_a_prompt() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        chances = rng.beta(1, 9, 150)
        found = [
            verdict(str(i), objects=bool(rng.random() < p), faulty=False)
            for i, p in enumerate(chances)
            for _ in range(4)
        ]
        one = cell(critic_cells(found), "false_alarm")
        hits += one["low"] <= 0.1 <= one["high"]
    assert hits >= 90


def test_rows_without_a_critique_or_a_truth_are_not_taken_for_verdicts() -> None:
    rows = [
        row("1"),
        row("2", critique=None),
        row("3", critique=" . "),
        row("4", critique="it is unkind ."),
        row("5", response="?"),
    ]
    truth = Truth(False, False, False, False, None)
    found, unknown = verdicts_of(rows, lambda row, _: None if row["response"] == "?" else truth)
    assert [(one.prompt_id, one.objects) for one in found] == [("1", False), ("4", True)]
    assert unknown == 2


def test_a_dropped_revision_leaves_the_answer_unless_the_recipe_keeps_it() -> None:
    dropped = row("1", revision="b", drop_reason="cut_off")
    assert text_after(dropped, []) == "a" and text_after(dropped, ["cut_off"]) == "b"
    assert text_after(row("1", revision="b"), []) == "b"


def test_chains_follow_an_answer_through_its_passes() -> None:
    rows = [
        row("1", revision_index=1, response="bad", revision="good"),
        row("1", response="bad", revision="bad", drop_reason="unchanged"),
        row("2", response="bad", revision="worse", drop_reason="loop"),
        row("3", response="good", revision="bad"),
        row("4", response="?"),
    ]
    found = chains_of(rows, lambda _, text: None if text == "?" else text == "bad")
    assert found == {
        ("1", 0): Chain("s", True, False),
        ("2", 0): Chain("s", True, True),
        ("3", 0): Chain("s", False, False),
    }


def test_shared_blind_spots() -> None:
    before = {(str(i), 0): Chain("blind" if i < 20 else "seen", True, i < 20) for i in range(60)}
    before |= {(f"g{i}", 0): Chain("fine", False, False) for i in range(50)}
    shares = {key: Chain(one.slice, one.came_through, False) for key, one in before.items()}
    found = shared_blind_spots(before, shares, seed=0)
    assert found is not None
    assert (found["n"], found["n_came_through"], found["n_bad_again"]) == (60, 20, 20)
    assert found["phi"]["value"] == pytest.approx(1.0) == found["kappa"]["value"]
    assert found["families"][0] == {"slice": "blind", "n_bad_before": 20, "came_through": 1.0, "bad_again": 1.0}
    rng = np.random.default_rng(1)
    other = {key: Chain(one.slice, bool(rng.random() < 0.4), False) for key, one in before.items()}
    unrelated = shared_blind_spots(before, other, seed=0)
    assert unrelated is not None and unrelated["phi"]["low"] < 0 < unrelated["phi"]["high"]
    assert shared_blind_spots({k: v for k, v in before.items() if not v.bad}, shares, seed=0) is None


def test_repeated_errors() -> None:
    before = [verdict(str(i), objects=i % 3 == 0, faulty=i % 2 == 0) for i in range(40)]
    assert repeated_errors(before, before[::-1], seed=0)["kappa"]["value"] == pytest.approx(1.0)
    never = [one._replace(objects=one.truth.faulty) for one in before]
    assert repeated_errors(before, never, seed=0)["kappa"]["value"] == pytest.approx(0.0)
    assert repeated_errors(before, [], seed=0) is None
