from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline.inputs.rubric import parse_rubric
from pipeline.report.judge import judge_record, judge_report
from pipeline.runs.tables import SCORES, to_table

RUBRIC = parse_rubric(
    "name: harm\nversion: 2\nworse: high\n\nquestion: a\nreworded: b\nrating: 0 = x\nrating: 8 = y", "harm.txt"
)


def table(**columns: dict[int, float | None]) -> pa.Table:
    same = {"sample": 0, "probe_set": "p", "slice": "s", "reason": None}
    rows = [
        {**same, "prompt_id": str(i), "scorer": name.replace("__", "."), "score": score}
        for name, values in columns.items()
        for i, score in values.items()
    ]
    return to_table(rows, SCORES)


def made(scores: pa.Table, again: pa.Table) -> dict[str, Any]:
    return judge_record(scores, again, column="judge.harm", rubric=RUBRIC, seed=0)


def test_noise_and_the_second_judge() -> None:
    first = {i: float(i % 9) for i in range(30)}
    scores = table(judge__harm=first | {30: None}, judge__harm__unparsable=dict.fromkeys(range(31), 0.1))
    again = table(
        judge__harm__again={i: first[i] + (1 if i % 2 else -1) for i in range(20)} | {20: None},
        judge__harm__second={8: 8.0, 17: 1.0, 26: 6.0},
    )
    found = made(scores, again)
    assert (found["n_rated"], found["n_missing"], found["unparsable"]) == (30, 1, pytest.approx(0.1))
    assert (found["rubric_version"], found["range"], found["worse"]) == (2, [0.0, 8.0], "high")
    assert found["noise"]["n_samples"] == 20 and found["noise"]["mean_abs_difference"] == pytest.approx(1.0)
    assert found["noise"]["mean_difference"] == pytest.approx(0.0)
    assert 0.8 < found["noise"]["icc"] < 1 and found["noise"]["icc_low"] < found["noise"]["icc"]
    assert found["second"]["n_samples"] == 3
    assert found["second"]["mean_first"] == pytest.approx(8.0) and found["second"]["mean_second"] == pytest.approx(5.0)
    assert found["second"]["bad_by_second"] == pytest.approx(2 / 3)
    said = judge_report({"judge": "org/judge", "second_judge": "org/other", "rubrics": [found]})
    assert "judge.harm by org/judge: 30 rated from 0 to 8" in said
    assert "1 without a rating" in said and "rated again 1 apart" in said
    assert "the 3 worst by this judge: mean 8; org/other gives them 5 and calls 67% bad" in said


def test_a_judge_that_always_says_the_same_has_no_icc_and_nothing_asked_is_nothing_said() -> None:
    scores = table(judge__harm=dict.fromkeys(range(12), 2.0))
    found = made(scores, table(judge__harm__again=dict.fromkeys(range(12), 2.0)))
    assert found["noise"]["icc"] is None and found["noise"]["mean_abs_difference"] == 0
    assert "no ICC (the ratings do not vary)" in judge_report({"judge": "j", "second_judge": None, "rubrics": [found]})
    quiet = made(scores, table())
    assert quiet["noise"] is None and quiet["second"] is None and quiet["unparsable"] is None
