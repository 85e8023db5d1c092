"""The table of a comparison: what is shown, what is only counted, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_runs import ENGINE, write_run

from pipeline.comparing.comparison import SideBySide, compare_checkpoints
from pipeline.comparing.table import checkpoints_report, comparison_report, names_of
from pipeline.report.checkpoints import Checkpoint, find_checkpoints
from pipeline.report.numbers import number
from pipeline.runs.rundir import RunDir


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SideBySide:
    run = write_run(tmp_path_factory.mktemp("runs") / "sandbox-blind-spot")
    return compare_checkpoints(find_checkpoints([str(run.path)]))


def test_a_block_a_score_with_a_row_a_checkpoint(found: SideBySide) -> None:
    lines = comparison_report(found).splitlines()
    assert lines[0].split() == [
        "mean",
        "since",
        "round",
        "0",
        "CVaR",
        "1%",
        "since",
        "round",
        "0",
        "beyond",
        "q99,",
        "x",
        "tail",
    ]
    at = lines.index("harm on probe: 60 prompts")
    rows = [line.split() for line in lines[at + 1 : at + 4]]
    assert [row[:2] for row in rows] == [["round", "0"], ["round", "1"], ["round", "2"]]
    assert rows[1][-1] == "green" and rows[2][-2:] == ["RED:", "s0"]
    means = [entry.cells["mean"]["value"] for entry in found.entries[:3]]
    assert [row[2] for row in rows] == [number(mean) for mean in means]
    low, high = (found.entries[2].cells["mean"][f"baseline_{end}"] for end in ("low", "high"))
    assert f"[{number(low, 2)}, {number(high, 2)}]" in lines[at + 3]
    assert max(map(len, lines)) <= 120


def test_what_says_nothing_is_counted_and_shown_if_asked_for(found: SideBySide) -> None:
    text = comparison_report(found)
    assert "Nothing moved: calm on probe." in text and "calm on probe:" not in text
    assert "harm on probe, s0: 12 prompts" in text, "a confirmed slice"
    hidden = len({entry.group for entry in found.entries if entry.group.slice}) - text.count("harm on probe, s")
    hidden -= text.count("harm on other, s")
    assert f"{hidden} slices without a sign" in text
    everything = comparison_report(found, everything=True)
    assert "calm on probe: 60 prompts" in everything
    assert everything.count("harm on probe, s") == 5
    assert "without a sign" not in everything


def test_colors_are_marks_and_nothing_else(found: SideBySide) -> None:
    import re

    painted = comparison_report(found, color=True)
    assert "\x1b[1;31mRED\x1b[0m" in painted
    assert re.sub("\x1b\\[[0-9;]*m", "", painted) == comparison_report(found)


def test_one_checkpoint_is_a_table_of_values(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    text = comparison_report(compare_checkpoints(find_checkpoints([str(run.path)])))
    assert "calm on probe" in text and "Nothing moved" not in text


def test_what_was_overlooked_stands_on_top(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", 1)
    two = write_run(tmp_path / "two", 1, engine=ENGINE | {"device": "cuda"}, prompts=range(20, 80))
    checkpoints = find_checkpoints([str(one.path), str(two.path)])
    found = compare_checkpoints(checkpoints, despite=["engine", "probes"])
    head = checkpoints_report(found)
    assert "NOT LIKE FOR LIKE" in head and "engine: device is cuda, not cpu" in head
    assert "of those in common (40 of 60)" in comparison_report(found)


def checkpoints(*names: str) -> list[Checkpoint]:
    return [Checkpoint(RunDir(Path(name)), 3) for name in names]


def test_names_tell_runs_apart_and_stay_short() -> None:
    assert names_of([Checkpoint(RunDir(Path("a")), 0), Checkpoint(RunDir(Path("a")), 12)]) == ["round 0", "round 12"]
    assert names_of(checkpoints("x/a", "x/b")) == ["a:3", "b:3"]
    assert names_of(checkpoints("x/a", "y/a")) == ["x/a:3", "y/a:3"]
    assert names_of(checkpoints("a\x1b[2J", "b")) == ["a\\x1b[2J:3", "b:3"]
    long = names_of(checkpoints("a-long-name-of-a-run-1", "a-long-name-of-a-run-2"))
    assert len(set(long)) == 2 and all(len(name) <= 16 for name in long)
    alike = names_of(checkpoints("a-long-name-1-of-a-run", "a-long-name-2-of-a-run"))
    assert alike == ["run 1:3", "run 2:3"], "whose ends are the same"
