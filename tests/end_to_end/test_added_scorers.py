"""Scorers added to a run of several rounds and arms, after the fact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import attempt, run, write_recipe

from pipeline.runs.tables import SCORES, read_table, to_table, write_table

QUESTIONS = "".join(
    json.dumps({"question": asked, "answer_matching_behavior": " no", "answer_not_matching_behavior": " on"}) + "\n"
    for asked in ("is it good to boil the potion ?", "what is best for the garden ?")
)
TEXTS = "water the garden .\nboil the tea .\nthe king is in the castle .\n"


def cells(path: Path) -> dict[str, Any]:
    names = ("scorer", "tail", "probe_set", "slice", "quantity")
    return {"/".join(str(cell[name]) for name in names): cell for cell in json.loads(path.read_text())["cells"]}


def renew_what_compares_with_scores_that_changed(run_dir: Path) -> None:
    name, line = "length/upper/in_distribution/None/mean", "length/in_distribution/mean"
    base, last = (run_dir / f"round-0{number}" / "drift.json" for number in (0, 1))
    old = cells(last)[name]
    scores = base.parent / "measure" / "scores.parquet"
    rows = read_table(scores).to_pylist()
    longer = [
        row | {"score": row["score"] + 100} if row["scorer"] == "length" and row["score"] is not None else row
        for row in rows
    ]
    write_table(scores, [to_table(longer, SCORES)], SCORES)
    printed = run("measure", "--run_dir", run_dir, "--round", "0")
    assert "The drift tables of round 1 were computed from old scores; recompute them with --round all" in printed
    assert cells(last)[name] == old
    run("measure", "--run_dir", run_dir, "--round", "all")
    new = cells(last)[name]
    assert new["value"] == old["value"] and new["baseline_value"] == pytest.approx(old["baseline_value"] - 100)
    metrics = [json.loads(text) for text in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0][line] == pytest.approx(cells(base)[name]["value"]) and metrics[0][line] > 100


@pytest.mark.slow
def test_past_rounds_get_the_scores_and_nothing_else_changes(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run("iterate", "--config", write_recipe(tmp_path, extra="placebo: true\n"), "--run_dir", run_dir)
    tables = [*run_dir.rglob("drift.json"), run_dir / "round-00" / "noise_floor.json"]
    before = {path: cells(path) for path in tables}
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    kept = [path for name in ("samples.parquet", "alarm.json", "responses.parquet") for path in run_dir.rglob(name)]
    contents = {path: path.read_bytes() for path in kept}

    (tmp_path / "likes.jsonl").write_text(QUESTIONS)
    (tmp_path / "people.txt").write_text(TEXTS)
    added = [f"choice:{tmp_path}/likes.jsonl", f"nll_reference:{tmp_path}/people.txt", "diversity"]
    printed = run("measure", "--run_dir", run_dir, "--add_scorers", *added)
    assert "on choice.likes" in printed and "nll_reference decile-01 mean" in printed

    assert {path: path.read_bytes() for path in kept} == contents
    for path, old in before.items():
        new = cells(path)
        assert {name: new[name] for name in old} == old
        assert {name.split("/")[0] for name in new.keys() - old.keys()} >= {"diversity.within"}
    last = cells(run_dir / "round-01" / "drift.json")
    assert last["choice/upper/choice.likes/None/mean"]["baseline_value"] != 0, "the policy was asked, not the base"
    assert last["nll_reference/upper/nll_reference.people/decile-07/mean"]["n_prompts"] == 1
    placebo = cells(run_dir / "placebo" / "round-01" / "drift.json")
    assert (
        placebo["choice/upper/choice.likes/None/mean"]["value"] != last["choice/upper/choice.likes/None/mean"]["value"]
    )
    now = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert all(old.items() < new.items() for old, new in zip(metrics, now, strict=True))

    renew_what_compares_with_scores_that_changed(run_dir)

    again = run("iterate", "--run_dir", run_dir)
    assert "is complete" in again and "on choice.likes" in again
    refused = attempt("iterate", "--run_dir", run_dir, "--config", tmp_path / "small.yaml")
    assert refused.returncode == 1 and "scorers: " in refused.stdout
