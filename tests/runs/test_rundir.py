from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RunError
from pipeline.inputs.recipe import diff_resolved
from pipeline.runs.files import file_sha256, read_json, read_json_lines, write_json, write_text
from pipeline.runs.rundir import WEIGHTS, Asked, RunDir, package_versions

RESOLVED = {"learning_rate": 0.001, "num_rounds": 3}
CONSTITUTION = "Be kind.\n\nBe honest.\n"
INPUTS = {"model": "m1", "prompts": "p1", "constitution": "c1"}


def claim(
    run: RunDir,
    *,
    resolved: Mapping[str, Any] = RESOLVED,
    constitution: str = CONSTITUTION,
    inputs: Mapping[str, str] = INPUTS,
    amend: str | None = None,
    additions: Sequence[str] = (),
) -> None:
    old = read_json(run.resolved) if run.resolved.exists() else resolved
    asked = Asked(constitution, inputs, diff_resolved(old, resolved), additions, amend)
    run.claim(asked, recipe_text="a recipe\n", resolved=resolved)


def contents(run: RunDir) -> dict[str, bytes]:
    return {str(p.relative_to(run.path)): p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    return run


# -- one writer ----------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from pipeline.runs.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
run.lock()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_refused_by_name_until_the_first_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"process {holder.pid} on .* is writing this run.*--run_dir"):
            RunDir(path).lock()
    finally:
        holder.kill()  # as a crash would: nothing is released in order
        holder.wait()
        for pipe in (holder.stdin, holder.stdout):
            if pipe:
                pipe.close()
    run = RunDir(path)
    run.lock()
    assert str(os.getpid()) in (path / ".lock.holder").read_text()
    run.release()


def test_a_lock_can_be_taken_again_after_its_release(tmp_path: Path) -> None:
    for _ in range(2):
        run = RunDir(tmp_path)
        run.lock()
        run.release()


def test_what_a_killed_writer_left_half_written_is_removed(run: RunDir) -> None:
    claim(run)
    folder = run.stage_dir(1, "generate")
    folder.mkdir(parents=True)
    (folder / ".responses.parquet.123.tmp").write_bytes(b"half")
    (folder / "responses.parquet").write_bytes(b"whole")
    (run.path / ".inputs.json.123.tmp").write_text("half")
    run.lock()
    run.release()
    assert [p.name for p in folder.iterdir()] == ["responses.parquet"]
    assert not (run.path / ".inputs.json.123.tmp").exists()


def test_nothing_is_removed_that_the_run_did_not_write(run: RunDir) -> None:
    claim(run)
    own = run.stage_dir(1, "generate")
    for folder in (own / ".mine.123.tmp", run.path / "round-01.bak", run.path / "notes"):
        folder.mkdir(parents=True)
    theirs = [own / ".notes.tmp", run.path / "round-01.bak" / ".a.1.tmp", run.path / "notes" / ".b.2.tmp"]
    for path in theirs:
        path.write_text("theirs")
    run.lock()
    run.release()
    assert all(path.exists() for path in [*theirs, own / ".mine.123.tmp"])


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    inner = RunDir(tmp_path / "mine")
    inner.path.mkdir()
    claim(inner)
    (inner.path / ".selected.json.7.tmp").write_text("being written")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        RunError, match=r"holds no run \(recipe.resolved.json is missing\).*: mine\. Give a new .*--run_dir"
    ):
        RunDir(tmp_path).lock()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_the_output_of_its_job_can_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "slurm-7.out").write_text("begun")
    (tmp_path / "job.log").touch()
    run = RunDir(tmp_path)
    run.lock()
    claim(run)
    assert run.resolved.exists() and (tmp_path / "logs" / "slurm-7.out").exists()


def test_a_launch_killed_before_its_recipe_was_recorded_can_be_started_again(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runs import rundir

    def killed_at(name: str) -> Any:
        def write(path: Path, value: Any) -> None:
            path.with_name(f".{path.name}.99.tmp").write_text("half")
            if path.name == name:
                raise KeyboardInterrupt
            path.write_text("whole")

        return write

    for name in ("recipe.yaml", "constitution.txt", "inputs.json", "recipe.resolved.json"):
        run.lock()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(rundir, "write_text", killed_at(name))
            patch.setattr(rundir, "write_json", killed_at(name))
            claim(run)
        run.release()
    run.lock()
    claim(run)
    assert read_json(run.resolved) == RESOLVED


@pytest.mark.parametrize("name", ["file", "file/below", "dangling"])
def test_where_no_folder_can_be_no_run_begins(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(RunError, match=rf"{name}: no run can be written there .*--run_dir"):
        RunDir(tmp_path / name).lock()


def test_logs_that_cannot_be_written_are_said(run: RunDir) -> None:
    (run.path / "logs").touch()
    with pytest.raises(RunError, match="logs: no run can be written there"):
        run.new_attempt()


# -- whose run it is -----------------------------------------------------------------------------------------


def test_claiming_records_what_the_run_is_of(run: RunDir) -> None:
    claim(run)
    assert run.recipe_copy.read_text() == "a recipe\n"
    assert run.constitution_copy.read_text() == CONSTITUTION
    assert read_json(run.resolved) == RESOLVED
    assert read_json(run.inputs) == INPUTS


def test_the_same_again_changes_nothing(run: RunDir) -> None:
    claim(run)
    before = contents(run)
    claim(run)
    claim(run, amend="a reason given for nothing")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"resolved": {"learning_rate": 0.002, "num_rounds": 3}}, r"learning_rate: 0\.001 -> 0\.002"),
        ({"constitution": "Be kind.\n\nBe brief.\n"}, r"-Be honest\.\n  \+Be brief\."),
        ({"inputs": INPUTS | {"prompts": "p2"}}, "prompts: the content changed"),
        ({"inputs": INPUTS | {"few_shot": "f"}}, "few_shot: is new"),
        ({"inputs": {"model": "m1", "constitution": "c1"}}, "prompts: is gone"),
    ],
)
def test_a_change_is_refused_with_its_diff_and_recorded_with_a_reason(
    run: RunDir, change: dict[str, Any], shown: str
) -> None:
    claim(run)
    before = contents(run)
    with pytest.raises(RunError, match=f"(?s)started with different settings:.*{shown}.*--run_dir.*--amend"):
        claim(run, **change)
    assert contents(run) == before, "a refusal writes nothing"

    write_text(run.done(0), "")
    write_text(run.done(1), "")
    write_text(run.adapter_dir(1) / WEIGHTS, "")
    claim(run, **change, amend="the old one was wrong")
    (entry,) = read_json_lines(run.amendments)
    assert entry["reason"] == "the old one was wrong"
    assert entry["after_round"] == 1
    assert entry["at"].startswith("20")
    import re

    assert re.search(shown.replace("\\n  ", "\\n"), "\n".join(entry["changes"]))
    before = contents(run)
    claim(run, **change)
    assert contents(run) == before, "from now on the run is of the changed settings"


def test_rounds_that_nothing_says_the_recipe_of_are_not_continued(run: RunDir) -> None:
    claim(run)
    write_text(run.done(0), "")
    run.resolved.unlink()
    before = contents(run)
    with pytest.raises(RunError, match=r"recipe\.resolved\.json: missing, but there is round-00.*--run_dir"):
        claim(run)
    assert contents(run) == before


def test_a_finished_round_without_its_adapter_is_refused(run: RunDir) -> None:
    claim(run)
    for round_ in range(3):
        write_text(run.done(round_), "")
    write_text(run.adapter_dir(1) / WEIGHTS, "one")
    write_text(run.adapter_dir(2) / WEIGHTS, "two")
    claim(run)
    (run.adapter_dir(2) / WEIGHTS).unlink()
    before = contents(run)
    with pytest.raises(RunError, match=r"adapter: missing, but round 2 is complete.*delete .*round-02 and all later"):
        claim(run, resolved=RESOLVED | {"num_rounds": 4}, amend="one more")
    assert contents(run) == before, "a refusal writes nothing"


def test_an_adapter_is_the_one_that_its_round_trained(run: RunDir) -> None:
    with pytest.raises(RunError, match=r"no adapter; run `python pipeline/distill.py --run_dir .*run --round 1`"):
        run.adapter_sha256(1)
    weights = run.adapter_dir(1) / WEIGHTS
    write_text(weights, "trained")
    found = run.adapter_sha256(1)
    write_json(run.stage_dir(1, "distill") / "manifest.json", {"outputs": {"adapter": {WEIGHTS: found}}})
    assert run.adapter_sha256(1) == found == file_sha256(weights)
    write_text(weights, "another's")
    with pytest.raises(
        RunError, match=r"not the weights that round 1 trained .*manifest\.json.*Put those back, or delete"
    ):
        run.adapter_sha256(1)


def test_what_only_adds_to_the_measuring_needs_no_reason_and_is_recorded(run: RunDir) -> None:
    claim(run)
    more = INPUTS | {"scorers.choice:a": "d"}
    with pytest.raises(RunError, match=r"scorers\.choice:a: is new"):
        claim(run, inputs=more)
    with pytest.raises(RunError, match="prompts: the content changed"):
        claim(run, inputs=more | {"prompts": "p2"}, additions=["scorers: [] -> [choice:a]"])
    claim(run, inputs=more, additions=["scorers: [] -> [choice:a]"])
    (entry,) = read_json_lines(run.amendments)
    assert entry["reason"] == "scorers were added"
    assert entry["changes"] == ["scorers: [] -> [choice:a]", "scorers.choice:a: is new"]


def test_metrics_of_a_round_are_replaced_and_none_are_invented(run: RunDir) -> None:
    run.record_round(0, {}, {"a": 1.0})
    run.update_metrics(0, {"a": 1.0, "b": 2.0})
    run.update_metrics(1, {"a": 3.0})
    assert read_json_lines(run.metrics) == [{"round": 0, "a": 1.0, "b": 2.0}]


@pytest.mark.parametrize("edited", [CONSTITUTION + "\n", CONSTITUTION.rstrip("\n")])
def test_a_constitution_whose_layout_changed_is_a_change_too(run: RunDir, edited: str) -> None:
    # Its digest, which every refine stage holds against it, is of the bytes: an edit that a diff of lines does
    # not show must not pass unseen here and be refused there.
    claim(run)
    with pytest.raises(RunError, match="constitution"):
        claim(run, constitution=edited, inputs=INPUTS | {"constitution": "c2"})


def test_a_constitution_that_is_gone_from_the_run_is_said(run: RunDir) -> None:
    claim(run)
    run.constitution_copy.unlink()
    with pytest.raises(RunError, match=r"constitution\.txt: missing"):
        claim(run)


def test_two_amendments_are_both_kept(run: RunDir) -> None:
    claim(run)
    claim(run, constitution="Be brief.\n", amend="one")
    claim(run, constitution="Be long.\n", amend="two")
    assert [entry["reason"] for entry in read_json_lines(run.amendments)] == ["one", "two"]


def test_an_amendment_is_recorded_before_anything_is_overwritten(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    # Killed in between, the next launch must still see the change, and not count it as settled.
    from pipeline.runs import rundir

    claim(run)

    def killed(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rundir, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            claim(run, resolved=RESOLVED | {"num_rounds": 5}, amend="more rounds")
    with pytest.raises(RunError, match="num_rounds: 3 -> 5"):
        claim(run, resolved=RESOLVED | {"num_rounds": 5})


# -- records -------------------------------------------------------------------------------------------------


def test_a_run_copied_by_what_follows_links_goes_on(run: RunDir) -> None:
    run.new_attempt()
    latest = run.path / "logs" / "latest"
    latest.unlink()
    latest.mkdir()
    (latest / "log.txt").write_text("copied")
    assert latest.resolve() != (attempt := run.new_attempt()).resolve()
    assert latest.is_symlink() and latest.resolve() == attempt.resolve()


def test_every_launch_has_a_folder_and_latest_points_to_the_last(run: RunDir) -> None:
    attempts = [run.new_attempt() for _ in range(3)]
    assert [a.name for a in attempts] == ["attempt-01", "attempt-02", "attempt-03"]
    assert (run.path / "logs" / "latest").resolve() == attempts[-1].resolve()
    assert (run.path / "logs" / "latest").readlink() == Path("attempt-03"), "relative: a run can be moved"


def test_an_attempt_after_one_was_deleted_gets_a_folder_of_its_own(run: RunDir) -> None:
    for _ in range(3):
        run.new_attempt()
    (run.path / "logs" / "attempt-01").rmdir()
    assert run.new_attempt().is_dir()


def test_a_round_is_recorded_once_and_in_order(run: RunDir) -> None:
    for round_ in (1, 0, 2):
        run.record_round(round_, {"steps": round_}, {"harm": 0.1 * round_})
    run.record_round(1, {"steps": 7}, {"harm": 9.0})
    assert read_json_lines(run.rounds) == [
        {"round": 0, "steps": 0},
        {"round": 1, "steps": 7},
        {"round": 2, "steps": 2},
    ]
    assert [row["harm"] for row in read_json_lines(run.metrics)] == [0.0, 9.0, 0.2]


def test_finished_rounds_are_those_with_the_mark(run: RunDir) -> None:
    assert run.finished_rounds() == []
    for round_ in (0, 2, 10):
        write_text(run.done(round_), "")
    (run.path / "round-03").mkdir()
    assert run.finished_rounds() == [0, 2, 10]


def test_copies_of_rounds_and_attempts_are_not_counted(run: RunDir) -> None:
    for round_ in (2, 100, 11):
        write_text(run.done(round_), "")
        write_text(run.drift(round_), "{}")
    write_text(run.path / "round-02.bak" / "DONE", "")
    write_text(run.path / "round-02.bak" / "drift.json", "{}")
    assert run.finished_rounds() == run.measured_rounds() == [2, 11, 100]
    (run.path / "logs" / "attempt-old").mkdir(parents=True)
    (run.path / "logs" / "attempt-07").mkdir()
    assert run.new_attempt().name == "attempt-08"


def test_provenance_grows_by_a_launch(run: RunDir) -> None:
    run.record_provenance(["--seed", "1"])
    run.record_provenance(["--seed", "1", "--amend", "x"])
    first, second = read_json(run.provenance)
    assert first["command"] == ["--seed", "1"] and second["command"][-1] == "x"
    assert first["packages"] == package_versions()
    assert {"torch", "transformers", "trl", "peft"} <= set(first["packages"])


def test_places(run: RunDir) -> None:
    relative = [p.relative_to(run.path).as_posix() for p in (run.adapter_dir(3), run.drift(0), run.done(12))]
    assert relative == ["round-03/distill/adapter", "round-00/drift.json", "round-12/DONE"]


def test_answers_of_servers_do_not_outlive_what_they_were_asked_by(run: RunDir) -> None:
    claim(run)
    kept = run.answers / "0.jsonl"
    write_text(kept, "[]")
    claim(run)
    claim(run, inputs=INPUTS | {"scorers.choice:a": "d"}, additions=["scorers: [] -> [choice:a]"])
    assert kept.exists(), "more measuring asks the same of the model"
    claim(run, inputs=INPUTS | {"scorers.choice:a": "d", "chat_template_path": "t"}, amend="another template")
    assert not kept.exists()
