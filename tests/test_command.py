"""What opening a run refuses, and what it says of what has changed since the last launch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import small_run

from pipeline import audit, command, iterate, measure
from pipeline.errors import InputError, RunError
from pipeline.runs.files import read_json, write_json, write_text
from pipeline.runs.rundir import COMPUTING
from pipeline.setup.session import Session


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    return small_run(tmp_path, num_rounds=2)


def opened(argv: list[str]) -> Session:
    session = command.open_session(command.parse(argv, command.StageOptions), argv)
    session.close()
    return session


def no_work(session: Session, round_: int) -> None:
    raise AssertionError(f"round {round_} of {session.run.path} was begun")


def test_a_round_that_a_stage_does_not_have_leaves_the_run_as_it_is(argv: list[str], tmp_path: Path) -> None:
    asked = [*argv, "--round", "9", "--learning_rate", "3e-3", "--amend", "oops"]
    with pytest.raises(InputError, match="--round 9: this stage has rounds 1 to 2"):
        command.run_stage(asked, no_work, first_round=1)
    assert not (tmp_path / "run").exists()
    run = opened(argv).run
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="--round 9"):
        command.run_stage(asked, no_work, first_round=1)
    with pytest.raises(InputError, match="--round 9"):
        measure.main(asked)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_an_audit_before_its_round_is_refined_names_the_command(argv: list[str]) -> None:
    session = opened(argv)
    with pytest.raises(
        RunError, match=r"refinements\.parquet: missing; run `python pipeline/refine\.py .* --round 1` first"
    ):
        audit.run(session, 1)


@pytest.mark.parametrize("left", ["RANK=1", "LOCAL_RANK=0", "WORLD_SIZE=2"])
def test_variables_left_from_another_launch_are_said(tmp_path: Path, left: str) -> None:
    ask = "from pipeline import command; from pipeline.runs import ranks; command.main(lambda argv: ranks.start())"
    name, _, value = left.partition("=")
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-c", ask], env=kept | {name: value}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "error: " in done.stdout and "unset RANK, LOCAL_RANK and WORLD_SIZE" in done.stdout, done.stderr


def test_a_complete_round_without_its_tables_names_the_command_that_makes_them(argv: list[str]) -> None:
    run = opened(argv).run
    write_text(run.done(0), "")
    for path, name in ((run.drift(0), "measure"), (run.alarm(0), "alarm")):
        with pytest.raises(RunError, match=rf"{path}: missing, .* `python pipeline/{name}\.py .* --round 0`"):
            iterate.main(argv)
        write_json(path, {})


def test_the_first_round_that_is_missing_comes_next(argv: list[str]) -> None:
    session = opened(argv)
    for round_ in (0, 2):
        write_text(session.run.done(round_), "")
    assert session.choose_round(None, first=0) == 1
    write_text(session.run.done(1), "")
    with pytest.raises(InputError, match="--round 3: this stage has rounds 0 to 2"):
        session.choose_round(None, first=0)


def test_versions_and_processes_that_changed_since_the_last_launch_are_told(
    argv: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(argv).run
    opened(argv)
    assert not caplog.messages, "nothing has changed"
    launches = read_json(run.provenance)
    launches[-1]["packages"] |= {"torch": "1.0", "scipy": "0.1"}
    launches[-1]["processes"] = 4
    write_json(run.provenance, launches)
    opened(argv)
    of_packages, of_processes = caplog.messages
    assert "torch" in COMPUTING and "torch 1.0 -> " in of_packages and "scipy" not in of_packages
    assert "processes: 4 at the last launch, now 1" in of_processes
