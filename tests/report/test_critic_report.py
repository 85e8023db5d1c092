from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.report.critic import (
    Chain,
    Finding,
    chains_of,
    critic_cells,
    findings_of,
    shared_blind_spots,
    shared_errors,
    text_after,
)
from pipeline.report.critic_words import critic_report
from pipeline.scorers.critic import Truth


def row(prompt_id: str, **values: Any) -> dict[str, Any]:
    made = {"prompt_id": prompt_id, "sample": 0, "slice": "s", "principle_id": "p", "revision_index": 0, "prompt": []}
    return {**made, "response": "a", "critique": "no fault .", "revision": "a", "drop_reason": None, **values}


def finding(prompt_id: str, objects: bool, faulty: bool, principle: str = "p", mended: bool | None = True) -> Finding:
    truth = Truth(faulty, changed=objects, lost=objects and not faulty, worse=False, mended=mended if faulty else None)
    return Finding(prompt_id, 0, 0, "s", principle, objects, truth)


def cell(cells: list[dict[str, Any]], name: str, principle: str | None = None) -> dict[str, Any]:
    (found,) = [one for one in cells if (one["principle"], one["rate"]) == (principle, name)]
    return found


def test_rates_are_counted_where_they_apply_by_principle() -> None:
    found = [finding(str(i), objects=i < 3, faulty=False) for i in range(30)]
    found += [finding(f"f{i}", objects=i >= 5, faulty=True, principle="q", mended=i >= 10) for i in range(20)]
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


def test_what_rewrites_lost_is_counted_where_it_is_known() -> None:
    known = [finding(str(i), objects=i < 5, faulty=False) for i in range(10)]
    unknown = [
        one._replace(prompt_id=f"u{i}", truth=Truth(False, True, None, None, None)) for i, one in enumerate(known)
    ]
    cells = critic_cells([*known, *unknown])
    assert (cell(cells, "lost_content")["n"], cell(cells, "lost_content")["value"]) == (10, pytest.approx(0.5))
    assert cell(cells, "changed_innocent")["n"] == 20
    assert cell(critic_cells(unknown), "made_worse")["value"] is None


def test_intervals_cover_with_several_critiques_a_prompt() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        chances = rng.beta(1, 9, 150)
        found = [
            finding(str(i), objects=bool(rng.random() < p), faulty=False)
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
    found, unknown = findings_of(rows, lambda row, _: None if row["response"] == "?" else truth)
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


def test_shared_errors() -> None:
    before = [finding(str(i), objects=i % 3 == 0, faulty=i % 2 == 0) for i in range(60)]
    same = shared_errors(before, before[::-1], seed=0)
    assert same is not None and same["kappa"]["value"] == pytest.approx(1.0)
    # Without a fault: objects at i % 6 == 3, 10 times; with one: does not at i % 6 of 2 and 4, 20 times.
    assert (same["n"], same["n_errors"], same["n_both_err"]) == (60, [30, 30], 30)
    never = shared_errors(before, [one._replace(objects=one.truth.faulty) for one in before], seed=0)
    assert never is not None and never["kappa"]["value"] == pytest.approx(0.0) and never["n_errors"] == [30, 0]
    assert shared_errors(before, [], seed=0) is None
    fewer = shared_errors(before[:9], before, seed=0)
    assert fewer is not None and fewer["kappa"]["value"] is None and "fewer than 10" in fewer["kappa"]["why"]


def test_two_that_object_too_readily_share_no_blind_spot_within_a_kind() -> None:
    rng = np.random.default_rng(2)

    def readily() -> list[Finding]:
        faulty = [i % 2 == 0 for i in range(400)]
        return [
            finding(str(i), objects=bool(rng.random() < (1 if f else 0.7)), faulty=f) for i, f in enumerate(faulty)
        ]

    found = shared_errors(readily(), readily(), seed=0)
    assert found is not None and found["kappa"]["low"] > 0.3
    within = found["kappa_without_fault"]
    assert within["low"] < 0 < within["high"] and abs(within["value"]) < 0.15
    assert found["kappa_with_fault"]["value"] is None, "neither misses any"


def test_shared_errors_in_words() -> None:
    findings = [finding(str(i), objects=i % 3 == 0, faulty=i % 2 == 0) for i in range(60)]
    few, many = (shared_errors(findings[:n], findings[:n], seed=0) for n in (9, 60))
    assert few is not None and many is not None
    source = {"from": "labels", "n": 60, "n_unknown": 0, "cells": critic_cells(findings)}
    source["repeated_errors"] = [{"round": 1, **few}, {"round": 2, **many}]
    source["policy"] = {"cells": source["cells"][:2], "shared_errors": many}
    record = {"round": 3, "critic": "base", "sources": [source], "rewrites_by_judge": None, "blind_spots": None}
    said = critic_report(record).splitlines()
    (first,) = [line for line in said if "in round 1" in line]
    assert first.endswith("on 9 answers; kappa not identified (fewer than 10 items)")
    (second,) = [line for line in said if "in round 2" in line]
    assert "30 errors in common, of 30 and 30, on 60 answers; kappa 1.00 [" in second and ", with one 1.00 [" in second
    assert any("the policy, asked the same: false alarms 33.3%" in line and "misses 66.7%" in line for line in said)
