from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.report.page.critique_rows import error_rows, outcome_rows, principle_rows
from pipeline.runs.files import write_json


def row(prompt: int, principle: str, critique: str, *, changed: bool, index: int = 0) -> dict[str, object]:
    return {
        "prompt_id": f"t{prompt}",
        "revision_index": index,
        "principle_id": principle,
        "critique": critique,
        "revision": "new" if changed else "old",
        "drop_reason": None if changed else "unchanged",
    }


def test_each_principle_is_counted(written: Callable[..., Any]) -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    run = written([base, base])
    rows = [row(i, "kind", "a fault" if i < 12 else "no fault", changed=i < 9) for i in range(40)]
    rows += [row(i, "short", "no fault", changed=False, index=1) for i in range(40)]
    rows.append(row(50, "kind", "no fault", changed=False) | {"drop_reason": "loop"})
    rows.append({"prompt_id": "t99", "principle_id": None, "critique": None, "drop_reason": "empty"})
    run.refine(1, rows)
    found = {(one["principle"], one["measure"]): one for one in principle_rows(run.page(0, 1))}
    assert set(found) == {(p, m) for p in ("kind", "short") for m in ("found fault", "changed the text")}
    kind = found["kind", "found fault"]
    assert (kind["times"], kind["of"], kind["value"]) == (12, 41, pytest.approx(12 / 41))
    assert 0.1 < kind["low"] < 0.3 < kind["high"] < 0.5
    assert found["kind", "changed the text"]["times"] == 9
    assert found["short", "found fault"]["value"] == 0
    outcomes = {(one["principle"], one["outcome"]): one["revisions"] for one in outcome_rows(run.page(0, 1))}
    assert outcomes == {
        ("kind", "kept"): 9,
        ("kind", "kept though loop"): 1,
        ("kind", "unchanged"): 31,
        ("none", "empty"): 1,
        ("short", "unchanged"): 40,
    }


def test_a_revision_that_is_kept_though_it_has_a_defect_changed_the_text(written: Callable[..., Any]) -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    run = written([base, base], keep_dropped=["cut_off"])
    rows = [row(i, "kind", "a fault", changed=True) | {"drop_reason": "cut_off"} for i in range(20)]
    rows += [row(i, "kind", "a fault", changed=True) | {"drop_reason": "loop"} for i in range(20, 40)]
    run.refine(1, rows)
    found = {one["measure"]: one for one in principle_rows(run.page(0, 1))}
    assert (found["changed the text"]["times"], found["changed the text"]["of"]) == (20, 40)


def test_the_interval_of_a_share_stays_within_its_range(written: Callable[..., Any]) -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    run = written([base, base])
    run.refine(1, [row(i, "kind", "a fault" if i else "no fault", changed=i > 0) for i in range(16)])
    for one in principle_rows(run.page(0, 1)):
        assert one["value"] == 15 / 16 and 0 < one["low"] < 15 / 16 < one["high"] <= 1


def test_what_is_no_critique_finds_no_fault(written: Callable[..., Any]) -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    run = written([base, base])
    run.refine(1, [row(i, "kind", "" if i < 5 else "a fault", changed=True) for i in range(20)])
    found = {one["measure"]: one for one in principle_rows(run.page(0, 1))}
    assert (found["found fault"]["times"], found["found fault"]["of"]) == (15, 20)


def cell(rate: str, principle: str | None, value: float | None) -> dict[str, Any]:
    return {"rate": rate, "principle": principle, "value": value, "low": 0.1, "high": 0.4, "n": 30, "n_prompts": 20}


def test_the_errors_of_the_critic_are_those_of_its_record(written: Callable[..., Any]) -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    run = written([base, base])
    assert error_rows(run.page(0, 1)) == [], "a round that was not audited"
    cells = [cell("false_alarm", None, 0.2), cell("miss", "kind", 0.3), cell("miss", "short", None)]
    cells.append(cell("changed_innocent", None, 0.5))
    write_json(run.run.critic(1), {"round": 1, "sources": [{"from": "labels.jsonl", "cells": cells}]})
    rows = error_rows(run.page(0, 1))
    assert [(one["measure"], one["principle"], one["value"]) for one in rows] == [
        ("false alarms", "all", 0.2),
        ("misses", "kind", 0.3),
    ], "what is known, and an error"
    assert all((one["truth"], one["of"], one["low"], one["high"]) == ("labels.jsonl", 30, 0.1, 0.4) for one in rows)
