"""The recipe that a round was made with, and who criticised and rewrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.made_with import amendments_before, named_rounds, recipe_of, told_by_round, way_of_revising
from pipeline.runs.files import write_json, write_json_lines
from pipeline.runs.rundir import RunDir


def amendment(after_round: int, *changes: str) -> dict[str, Any]:
    return {"after_round": after_round, "reason": "why not", "changes": list(changes)}


def test_a_round_has_the_recipe_of_its_time(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_json(run.resolved, {"lora_r": 4, "critic": "base", "new": 1})
    changes = [
        amendment(0, 'critic: "policy" -> "base"', "gone: 1 -> (no such field)"),
        amendment(1, "lora_r: 16 -> 8", "new: (no such field) -> 1"),
        amendment(1, "lora_r: 8 -> 4"),
    ]
    write_json_lines(run.amendments, changes)
    assert recipe_of(run, 2) == {"lora_r": 4, "critic": "base", "new": 1}
    assert recipe_of(run, 1) == {"lora_r": 16, "critic": "base"}
    assert recipe_of(run, 0) == {"lora_r": 16, "critic": "policy"}
    assert [len(amendments_before(run, r)) for r in (0, 1, 2)] == [0, 3, 8]


def test_an_amendment_before_anything_was_done(tmp_path: Path) -> None:
    write_json_lines(RunDir(tmp_path).amendments, [amendment(-1, "constitution: the line endings changed")])
    said = ["before round 0 was complete: why not", "  constitution: the line endings changed"]
    assert amendments_before(RunDir(tmp_path), 1) == said


@pytest.mark.parametrize(
    ("critic", "reviser", "says"),
    [
        ("policy", "policy", "criticised and rewritten by the model itself"),
        ("policy", "base", "criticised by the model itself and rewritten by the untrained base"),
        ("base", "{base}", "criticised and rewritten by the untrained base"),
        ("/a/critic", "policy", "criticised by another model and rewritten by the model itself"),
        ("/a/critic", "/a/critic", "criticised and rewritten by another model"),
        ("/a/critic", "/a/reviser", "criticised by another model and rewritten by a third model"),
        ("org/judge", "org/judge@v1", "criticised by `org/judge` and rewritten by `org/judge` at `v1`"),
        ("http://h:1/v1", "policy", "criticised by a model on a server and rewritten by the model itself"),
        ("http://h:1/v1#org/big", "base", "criticised by `org/big` on a server and rewritten by the untrained base"),
        ("http://h:1/v1,http://i:1/v1", "http://j:1/v1", "criticised by a model on a server and rewritten by a third"),
    ],
)
def test_who_criticised_and_rewrote(tmp_path: Path, critic: str, reviser: str, says: str) -> None:
    recipe = {"critic": critic, "reviser": reviser.format(base=tmp_path), "model_name_or_path": str(tmp_path)}
    told = way_of_revising(recipe | {"critique": True, "num_revisions": 1})
    assert told.startswith(says) and "http" not in told and "/a/" not in told
    assert way_of_revising(recipe | {"critique": True, "num_revisions": 4}) == f"{told}, in 4 passes"
    alone = way_of_revising(recipe | {"critique": False, "num_revisions": 1})
    assert alone.startswith("rewritten by ") and alone.endswith(" from principles alone, without critiques")


def test_rounds_alike_are_told_together() -> None:
    assert told_by_round({1: "a"}) == "In round 1, a."
    assert told_by_round({1: "a", 2: "a"}) == "In each round, a."
    assert told_by_round({1: "a", 2: "b", 3: "a"}) == "In rounds 1 and 3, a. In round 2, b."
    assert named_rounds([1, 2, 4]) == "rounds 1, 2 and 4"
