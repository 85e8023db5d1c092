"""RUN and RUN:ROUND."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.report.checkpoints import find_checkpoints


def make_run(path: Path, rounds: int) -> Path:
    for round_ in range(rounds):
        folder = path / f"round-{round_:02d}"
        folder.mkdir(parents=True)
        (folder / "drift.json").write_text("{}")
    (path / "recipe.resolved.json").write_text("{}")
    return path


def labels(given: list[str]) -> list[str]:
    return [checkpoint.label for checkpoint in find_checkpoints(given)]


def test_a_run_is_its_measured_rounds_and_each_is_there_once(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", 3), make_run(tmp_path / "b", 1)
    assert labels([str(a)]) == ["a:0", "a:1", "a:2"]
    assert labels([f"{a}:2", str(b), str(a)]) == ["a:2", "b:0", "a:0", "a:1"]


def test_a_folder_s_name_may_look_like_a_round(tmp_path: Path) -> None:
    odd = make_run(tmp_path / "run:7", 1)
    assert labels([str(odd), f"{odd}:0"]) == ["run:7:0"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 2)
    with pytest.raises(InputError, match=r"run:5: measured rounds are 0, 1; give RUN or RUN:ROUND"):
        find_checkpoints([f"{run}:5"])
    with pytest.raises(InputError, match=r"nowhere: no run is there \(no recipe\.resolved\.json\)"):
        find_checkpoints([str(tmp_path / "nowhere")])
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "recipe.resolved.json").write_text("{}")
    with pytest.raises(InputError, match=r"begun: nothing is measured there yet"):
        find_checkpoints([str(begun)])
