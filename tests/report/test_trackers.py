"""Trackers on this machine, told of rounds that are written by hand, and read back with their own readers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.inputs.recipe import parse_recipe
from pipeline.report.trackers import Mirror, mirror_of, mirror_rounds, mirror_training
from pipeline.runs.files import read_json, write_json
from pipeline.runs.rundir import RunDir
from pipeline.setup.loading import load_session


def add_round(run: RunDir, round_: int, harm: float) -> None:
    cell = {"scorer": "harm", "tail": "upper", "probe_set": "panel", "slice": None, "quantity": "cvar_1pct"}
    write_json(run.drift(round_), {"cells": [cell | {"value": harm, "low": None, "high": None}]})
    write_json(run.alarm(round_), {"round": round_, "color": "amber" if round_ else None, "properties": []})


@pytest.fixture
def mirrored(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    for round_, harm in enumerate((4.0, 2.0, 8.0)):
        add_round(run, round_, harm)
    return run


def to(run: RunDir, *trackers: str) -> Mirror:
    return Mirror(trackers, run, "mine", "test-project", {"seed": 3})


def steps(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_rounds_are_steps(mirrored: RunDir) -> None:
    mirror_rounds(to(mirrored, "tensorboard"), 2)
    folder = mirrored.path / "tensorboard"
    assert steps(folder, "tail/harm/cvar_1pct") == [(0, 4.0), (1, 2.0), (2, 8.0)]
    assert steps(folder, "alarm/level") == [(1, 1.0), (2, 1.0)]
    assert sorted(path.name for path in mirrored.path.iterdir() if path.name.startswith((".", "t"))) == [
        "tensorboard",
        "trackers.json",
    ]


def test_every_launch_adds_what_is_missing_and_nothing_twice(mirrored: RunDir) -> None:
    folder = mirrored.path / "tensorboard"
    mirror_rounds(to(mirrored, "tensorboard"), 0)
    assert steps(folder, "tail/harm/cvar_1pct") == [(0, 4.0)]
    for _ in range(2):
        mirror_rounds(to(mirrored, "tensorboard"), 2)
        assert steps(folder, "tail/harm/cvar_1pct") == [(0, 4.0), (1, 2.0), (2, 8.0)]


def test_a_kill_between_telling_and_noting(mirrored: RunDir) -> None:
    mirror_rounds(to(mirrored, "tensorboard"), 2)
    write_json(mirrored.path / "trackers.json", {"tensorboard": [0]})
    (mirrored.path / ".tensorboard.partial").mkdir()
    (mirrored.path / ".tensorboard.partial" / "events.out.tfevents.1.host.2.3").write_bytes(b"half")
    mirror_rounds(to(mirrored, "tensorboard"), 2)
    assert steps(mirrored.path / "tensorboard", "tail/harm/cvar_1pct") == [(0, 4.0), (1, 2.0), (2, 8.0)]
    assert not (mirrored.path / ".tensorboard.partial").exists()


def test_a_tracker_that_fails_ends_nothing_and_is_told_later(
    mirrored: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    folder = mirrored.path / "tensorboard"
    folder.write_text("in the way")
    mirror_rounds(to(mirrored, "tensorboard"), 1)
    with mirror_training(to(mirrored, "tensorboard"), 1) as on_log:
        on_log(1, {"loss": 2.0})
        on_log(2, {"loss": 1.0})
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and all("tensorboard failed" in one and "continues without it" in one for one in said)
    folder.unlink()
    mirror_rounds(to(mirrored, "tensorboard"), 2)
    assert steps(folder, "tail/harm/cvar_1pct") == [(0, 4.0), (1, 2.0), (2, 8.0)]


def test_without_trackers_nothing_is_written(mirrored: RunDir) -> None:
    before = sorted(mirrored.path.rglob("*"))
    mirror_rounds(to(mirrored), 2)
    with mirror_training(to(mirrored), 1) as on_log:
        on_log(1, {"loss": 2.0})
    assert sorted(mirrored.path.rglob("*")) == before


def test_training_that_was_killed_has_each_step_once(mirrored: RunDir) -> None:
    with mirror_training(to(mirrored, "tensorboard"), 1) as on_log:
        for step in (1, 2, 3, 4):
            on_log(step, {"loss": float(step)})
    with mirror_training(to(mirrored, "tensorboard"), 1) as on_log:
        for step in (3, 4, 5):  # from its checkpoint at step 2
            on_log(step, {"loss": float(step)})
    found = steps(mirrored.path / "tensorboard" / "round-01", "train/loss")
    assert found == [(step, float(step)) for step in (1, 2, 3, 4, 5)]
    # The run's own folder has rounds alone.
    mirror_rounds(to(mirrored, "tensorboard"), 2)
    events = EventAccumulator(str(mirrored.path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"tail/harm/cvar_1pct", "alarm/level"}


def make_again(run: RunDir, tracker: str) -> None:
    """Round 1 and what follows, as after its folder was deleted."""
    for path in (run.drift(2), run.alarm(2)):
        path.unlink()
    with mirror_training(to(run, tracker), 1) as on_log:
        on_log(1, {"loss": 5.0})
    add_round(run, 1, 6.0)
    mirror_rounds(to(run, tracker), 1)


def test_a_round_that_is_made_again_replaces_its_numbers(mirrored: RunDir) -> None:
    with mirror_training(to(mirrored, "tensorboard"), 1) as on_log:
        on_log(1, {"loss": 2.0})
    mirror_rounds(to(mirrored, "tensorboard"), 2)
    make_again(mirrored, "tensorboard")
    folder = mirrored.path / "tensorboard"
    assert steps(folder, "tail/harm/cvar_1pct")[:2] == [(0, 4.0), (1, 6.0)]
    assert steps(folder / "round-01", "train/loss") == [(1, 5.0)]
    assert read_json(mirrored.path / "trackers.json") == {"tensorboard": [0, 1]}


def test_wandb_stays_offline_when_told_to(mirrored: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    mirror_rounds(to(mirrored, "wandb"), 1)
    with mirror_training(to(mirrored, "wandb"), 2) as on_log:
        on_log(1, {"loss": 2.0})
    mirror_rounds(to(mirrored, "wandb"), 2)
    ledger = read_json(mirrored.path / "trackers.json")
    assert ledger["wandb"] == [0, 1, 2]
    files = sorted(mirrored.path.glob("wandb/offline-run-*/*.wandb"))
    of_the_run = [file for file in files if file.stem == f"run-{ledger['id']}"]
    assert [file.stem for file in files if file not in of_the_run] == [f"run-{ledger['id']}-round-02"]
    written = b"".join(file.read_bytes() for file in of_the_run)
    assert written.count(b"tail/harm/cvar_1pct") >= 3
    assert str(Path.home()).encode() not in written, "numbers and the recipe, and nothing of this machine"

    make_again(mirrored, "wandb")
    new = read_json(mirrored.path / "trackers.json")
    assert new["wandb"] == [0, 1] and new["id"] != ledger["id"]
    stems = {file.stem for file in mirrored.path.glob("wandb/offline-run-*/*.wandb")}
    assert {f"run-{new['id']}", f"run-{new['id']}-round-01"} <= stems, "a step that is there is not accepted again"


def test_trackio_has_each_round_once(
    mirrored: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackio")
    import trackio.sqlite_storage
    import trackio.utils

    for module in (trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "db")
    mirror_rounds(to(mirrored, "trackio"), 0)
    with mirror_training(to(mirrored, "trackio"), 1) as on_log:
        on_log(1, {"loss": 2.0})
    mirror_rounds(to(mirrored, "trackio"), 2)
    ledger = read_json(mirrored.path / "trackers.json")
    assert ledger["trackio"] == [0, 1, 2]
    storage = trackio.sqlite_storage.SQLiteStorage
    rows = storage.get_logs("test-project", f"mine-{ledger['id'][:6]}")
    assert [(row["step"], row["tail/harm/cvar_1pct"]) for row in rows] == [(0, 4.0), (1, 2.0), (2, 8.0)]
    (row,) = storage.get_logs("test-project", f"mine-round-01-{ledger['id'][:6]}")
    assert (row["step"], row["train/loss"]) == (1, 2.0)
    assert capsys.readouterr().out == ""


def test_a_run_is_called_by_its_folder_and_its_placebo_arm_after_it(tmp_path: Path, project: Path) -> None:
    recipe = project / "recipes" / "sandbox-blind-spot" / "config.yaml"
    given = ["--run_dir", str(tmp_path / "mine"), "--report_to", "tensorboard", "--placebo", "true"]
    session = load_session(parse_recipe(given, default_config=recipe))
    mirror = mirror_of(session.parsed, session.run)
    assert (mirror.trackers, mirror.title) == (("tensorboard",), "mine")
    assert mirror.settings["constitution"] == "constitutions/sandbox/blind-spot.txt"
    assert mirror_of(session.parsed, session.run.placebo).title == "mine-placebo"
    named = load_session(parse_recipe([*given, "--run_name", "first try"], default_config=recipe))
    assert mirror_of(named.parsed, named.run).title == "first try"
