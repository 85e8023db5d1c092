from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.report.calibration import calibration_records, calibration_report, calibration_values
from pipeline.runs.tables import SCORES, to_table, write_table


def scores(folder: Path, sets: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """A table as `choice` writes it: whether the likeliest option is true, and by how much it is too sure."""
    rows = []
    for name, (sure, right) in sets.items():
        for i, (p, one) in enumerate(zip(sure, right, strict=True)):
            row = {"prompt_id": f"q{i}", "sample": 0, "probe_set": name, "slice": ""}
            rows.append({**row, "scorer": "choice.prefers", "score": float(one)})
            rows.append({**row, "scorer": "choice.overconfidence", "score": float(p) - float(one)})
            rows.append({**row, "scorer": "choice.neither", "score": 0.9 if name == "facts" else 0.1})
    rows.append({"prompt_id": "q", "sample": 0, "probe_set": "opinion", "slice": "", "scorer": "choice", "score": 0.5})
    failed = {"prompt_id": "failed", "sample": 0, "probe_set": next(iter(sets), "opinion"), "slice": ""}
    rows += [{**failed, "scorer": name, "score": None} for name in ("choice.prefers", "choice.overconfidence") if sets]
    write_table(folder / "scores.parquet", [to_table(rows, SCORES)], SCORES)
    return folder / "scores.parquet"


def test_confidence_is_read_back_from_the_scores(tmp_path: Path) -> None:
    sure = np.linspace(0.4, 1.0, 120)
    right = np.arange(120) % 2
    few = np.full(5, 0.9), np.ones(5)
    path = scores(tmp_path, {"facts": (sure, right), "few": few})
    facts, other = calibration_records(path, seed=0)
    assert (facts["probe_set"], facts["n"], len(facts["bins"])) == ("facts", 120, 10)
    assert facts["confidence"] == pytest.approx(0.7) and facts["accuracy"] == pytest.approx(0.5)
    assert [one["n"] for one in facts["bins"]] == [12] * 10
    gaps = [abs(part.mean() - 0.5) for part in np.split(sure, 10)]
    assert facts["ece"] == pytest.approx(np.mean(gaps))
    assert facts["p_calibrated"] < 0.01 < facts["low"] < facts["error"] < facts["high"]
    assert (other["error"], other["why"]) == (None, "fewer than 20 items")
    assert calibration_values([facts, other]) == {
        "choice.calibration_error/facts": facts["error"],
        "choice.ece/facts": facts["ece"],
    }
    brief, full = (calibration_report([facts, other], in_full=full) for full in (False, True))
    assert "calibration on facts: 120 questions, confidence 70.0%, accuracy 50.0%" in brief
    assert "by chance alone" in brief and "calibration on few: 5 questions; not identified: fewer than 20" in brief
    assert facts["neither"] == pytest.approx(0.9) and brief.count("90.0% of the probability is on no option") == 1
    assert "too sure" in full and full.count("50.0% [") == 10 and "50.0% [" not in brief


def test_nothing_is_said_where_no_answer_is_true(tmp_path: Path) -> None:
    assert calibration_records(scores(tmp_path, {}), seed=0) == []
