"""Runs looked at again and again, and where they stand."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from drawn_runs import ENGINE, RECIPE, VERSIONS, alarm, write_round, write_run, write_training

from pipeline.comparing.progress import progress_of
from pipeline.comparing.watching import CLEAR, standing, watch
from pipeline.errors import InputError
from pipeline.report.checkpoints import Checkpoint, find_checkpoints
from pipeline.runs.files import write_json, write_text
from pipeline.runs.rundir import RunDir


def labels(checkpoints: list[Checkpoint]) -> str:
    return " ".join(one.label for one in checkpoints)


def test_where_a_run_stands(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    assert progress_of(run)._replace(seconds_since=None) == (False, 1, 2, [], None)
    write_training(run, 1, ENGINE, VERSIONS, "be kind .\n")
    assert progress_of(run).sentence() == "round 1 of 2 is not finished: generate, refine, distill done"
    write_round(run, 1)
    assert progress_of(run).done == ["generate", "refine", "distill", "measure"]
    since = progress_of(run).seconds_since
    assert since is not None and since < 60
    write_run(tmp_path / "run", rounds=3)
    assert progress_of(run).sentence() == "finished with round 2"
    assert standing([str(run.path)]) == ""


def test_a_run_that_a_red_alarm_ended_is_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=2, recipe=RECIPE | {"on_alarm": "stop"})
    assert not progress_of(run).is_over
    write_json(run.alarm(1), alarm(1) | {"color": "red"})
    assert progress_of(run)[:2] == (True, 1)


def test_the_table_comes_anew_when_a_round_is_measured_and_when_it_is_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=1)
    given = [str(run.path)]
    shown = watch(given, lambda: find_checkpoints(given), labels, 0.001)
    assert next(shown).startswith(f"run:0\n\n{run.path}: round 1 of 2 is not finished: nothing done")
    write_round(run, 1)
    assert next(shown).startswith("run:0 run:1\n")
    write_json(run.alarm(1), alarm(1))
    write_text(run.done(1), "done\n")
    assert "round 2 of 2 is not finished" in next(shown)
    write_run(tmp_path / "run", rounds=3)
    assert next(shown) == "run:0 run:1 run:2\n\nAll runs are finished.\n"
    assert next(shown, None) is None


def test_a_run_that_has_measured_nothing_yet_is_waited_for(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    given = [str(run.path)]
    with pytest.raises(InputError, match="no run is there"):
        next(watch(given, lambda: find_checkpoints(given), labels, 0.001))
    write_json(run.resolved, RECIPE)
    shown = watch(given, lambda: find_checkpoints(given), labels, 0.001)
    assert next(shown).startswith("Not measured yet: ")
    write_run(run.path, rounds=3)
    assert next(shown).startswith("run:0 run:1 run:2\n")
    with pytest.raises(InputError, match="measured rounds are 0, 1, 2"):
        next(watch([f"{run.path}:9"], lambda: find_checkpoints([f"{run.path}:9"]), labels, 0.001))


def test_a_terminal_is_drawn_anew_at_every_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    run = write_run(tmp_path / "run", rounds=1)
    given = [str(run.path)]
    shown = watch(given, lambda: find_checkpoints(given), labels, 0.001)
    first, second = next(shown), next(shown)
    assert first.startswith(f"{CLEAR}run:0\n") and second.startswith(f"{CLEAR}run:0\n")
