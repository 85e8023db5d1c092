from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.report.checkpoints import Checkpoint
from pipeline.report.page.reading import Page
from pipeline.report.page.records import cost_rows, differing_fields, editions, provenance_rows
from pipeline.runs.files import write_json
from pipeline.runs.rundir import RunDir

BASE = np.random.default_rng(0).normal(size=(30, 2))


def manifest(run: RunDir, round_: int, place: str, stage: str, seconds: float, **facts: Any) -> None:
    timing = {"wall_seconds": seconds, "work_seconds": seconds, "model_seconds": 2 * seconds, "processes": 2}
    path = run.round_dir(round_) / place
    write_json(path, {"stage": stage, "round": round_, "rows": {"a": 10, "b": 5}, "timing": timing, **facts})


def test_cost_is_summed_by_stage(written: Callable[..., Any]) -> None:
    run = written([BASE, BASE])
    tokens = {"prompt": 100, "new": 40}
    manifest(run.run, 1, "generate/manifest.json", "generate", 2.0, tokens=tokens)
    manifest(run.run, 1, "distill/manifest.json", "distill", 9.0, tokens={"trained": 70})
    manifest(run.run, 1, "measure/samples.manifest.json", "measure", 3.0, tokens=tokens)
    manifest(run.run, 1, "measure/scores.manifest.json", "score", 1.0)
    manifest(run.run, 1, "alarm/watch/base/samples.manifest.json", "measure", 4.0, tokens=tokens)
    rows = cost_rows(run.page(0, 1))
    assert [row["stage"] for row in rows] == ["generate", "distill", "measure", "alarm"]
    generate, distill, measure, alarm = rows
    assert (generate["prompt_tokens"], generate["sampled_or_trained_tokens"], generate["rows"]) == (100, 40, 15)
    assert (distill["sampled_or_trained_tokens"], distill["seconds"], distill["model_seconds"]) == (70, 9.0, 18.0)
    assert (measure["seconds"], measure["rows"]) == (4.0, 30)
    assert alarm["seconds"] == 4.0


def test_editions_of_the_constitution(written: Callable[..., Any]) -> None:
    run = written([BASE, BASE, BASE, BASE])
    for round_, text in ((1, "be kind\nbe brief\n"), (2, "be kind\nbe brief\n"), (3, "be kind\nbe thorough\n")):
        run.refine(round_, [{}], constitution=text)
    first, second = editions(run.page(0, 1, 2, 3))
    assert (first.labels, first.difference) == (["round 1", "round 2"], [])
    assert second.labels == ["round 3"]
    assert second.difference == [
        "--- round 2",
        "+++ round 3",
        "@@ -1,2 +1,2 @@",
        " be kind",
        "-be brief",
        "+be thorough",
    ]


def test_where_recipes_differ(written: Callable[..., Any]) -> None:
    one, two = written([BASE], "one", seed=1), written([BASE], "two", seed=2, extra="x")
    page = Page([Checkpoint(one.run, 0), Checkpoint(two.run, 0)])
    assert differing_fields(page) == [("extra", ["-", "x"]), ("seed", ["1", "2"])]
    assert differing_fields(one.page(0)) == []


def test_provenance_names_the_inputs(written: Callable[..., Any]) -> None:
    run = written([BASE])
    write_json(run.run.inputs, {"prompts": "ab12"})
    pairs = dict(provenance_rows(run.page(0).runs["run"]))
    assert pairs["model_name_or_path"] == "org/model"
    assert pairs["input prompts"] == "sha256 ab12"
