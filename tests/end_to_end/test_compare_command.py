"""``compare`` as a person types it, beside a run that is going on."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifacts import artifacts
from commands import PROJECT, attempt, command, environment, run, write_recipe


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two rounds, and what ``compare --watch`` printed beside it."""
    folder = tmp_path_factory.mktemp("watched")
    run_dir = folder / "run"
    arguments = ("--config", write_recipe(folder, rounds=2), "--run_dir", run_dir)
    pipes = {"cwd": PROJECT, "env": environment(), "stdout": subprocess.PIPE, "text": True}
    going_on = subprocess.Popen(command("iterate", *arguments), **pipes)  # type: ignore[call-overload]
    deadline = time.monotonic() + 200
    while not (run_dir / "recipe.resolved.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    watching = subprocess.Popen(command("compare", run_dir, "--watch", "0.3"), **pipes)  # type: ignore[call-overload]
    printed, _ = going_on.communicate(timeout=600)
    assert going_on.returncode == 0, printed
    seen, _ = watching.communicate(timeout=200)
    assert watching.returncode == 0, seen
    return run_dir, seen


@pytest.mark.slow
def test_watching_follows_a_run_to_its_end(watched: tuple[Path, str]) -> None:
    run_dir, seen = watched
    heads = [line for line in seen.splitlines() if line.startswith(f"{run_dir}: round")]
    assert any("is not finished" in line for line in heads), "it was there before the end"
    assert heads[-1] == f"{run_dir}: round 1, round 2 against round 0"
    assert seen.rstrip().endswith("All runs are finished.")
    assert "\x1b" not in seen


@pytest.mark.slow
def test_a_finished_run_in_every_form(watched: tuple[Path, str]) -> None:
    run_dir, _ = watched
    before = artifacts(run_dir)
    table = run("compare", run_dir, "--price", "2/h", "--pairs", "changed", "2")
    assert "gold.harm on in_distribution: 24 prompts" in table
    assert "money" in table and "trained on" in table
    assert "[-" in table or "{+" in table
    record = json.loads(run("compare", f"{run_dir}:2", "--json", "--all"))
    assert [one["round"] for one in record["checkpoints"]] == [0, 2]
    assert {cell["probe_set"] for cell in record["cells"] if cell["scorer"] == "kl"} == {
        "in_distribution",
        "look_alike",
    }
    rows = list(csv.DictReader(io.StringIO(run("compare", run_dir, "--csv"))))
    drift = json.loads((run_dir / "round-02" / "drift.json").read_text())
    known = {(c["scorer"], c["tail"], c["probe_set"], c["slice"] or "", c["quantity"]): c for c in drift["cells"]}
    mine = [row for row in rows if row["checkpoint"] == "run:2"]
    assert mine
    for row in mine:
        cell = known[row["scorer"], row["tail"], row["probe_set"], row["slice"], row["quantity"]]
        shown = None if row["change"] == "" else float(row["change"])
        assert shown == cell["baseline_value"]
    assert artifacts(run_dir) == before


@pytest.mark.slow
def test_other_sampling_is_refused_unless_asked_for(watched: tuple[Path, str], tmp_path: Path) -> None:
    run_dir, _ = watched
    hot = tmp_path / "hot"
    recipe = write_recipe(tmp_path, rounds=0, extra="probe_temperature: 0.5\n")
    run("iterate", "--config", recipe, "--run_dir", hot)
    refused = attempt("compare", run_dir, hot)
    assert refused.returncode == 1
    assert "hot:0: sampling: probe_temperature is 0.5, not 1.0" in refused.stdout
    assert refused.stdout.rstrip().endswith("--despite sampling")
    assert "NOT LIKE FOR LIKE" in run("compare", run_dir, hot, "--despite", "sampling")


@pytest.mark.slow
def test_input_that_means_nothing(watched: tuple[Path, str]) -> None:
    run_dir, _ = watched
    for arguments, status, said in (
        ([run_dir, "--price", "3"], 1, "error: --price 3: give an amount"),
        ([run_dir, "--pairs", "best", "1"], 1, "error: --pairs best 1: give one of"),
        ([f"{run_dir}:7"], 1, "measured rounds are 0, 1, 2"),
        ([run_dir.parent], 1, "no run is there"),
        (["--watch", run_dir], 2, "put the runs before --watch"),
        ([run_dir, "--json", "--csv"], 2, "not allowed with"),
        ([], 2, "required: RUN[:ROUND]"),
    ):
        done = attempt("compare", *arguments)
        assert done.returncode == status, done.stdout
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_error_ends_with_where_it_was_and_how_to_go_on(tmp_path: Path) -> None:
    recipe, run_dir = write_recipe(tmp_path), tmp_path / "run"
    arguments = ("--config", recipe, "--run_dir", run_dir)
    run("generate", *arguments, "--round", "1")
    responses = run_dir / "round-01" / "generate" / "responses.parquet"
    whole = responses.read_bytes()
    responses.write_bytes(whole[:100])
    launched = command("refine", *arguments, "--round", "1", launcher="cpu")
    done = subprocess.run(launched, cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=600)
    lines = done.stdout.strip().splitlines()
    assert lines[-2].startswith(f"error: {responses}: damaged")
    log = run_dir / "logs" / "attempt-02" / "log.txt"
    place, log_file, kept, how = lines[-1].split("; ", 3)
    assert (place, log_file, kept) == ("stopped in round 1, refine", f"log: {log}", "what is finished is kept")
    assert log.read_text().strip().splitlines()[-1].endswith(lines[-1])
    # The command is the one that was typed, with its launcher: it goes on as soon as the cause is mended.
    resume = how.removeprefix("to resume: ")
    assert resume.split()[1:] == launched[1:]
    responses.write_bytes(whole)
    again = subprocess.run(
        [sys.executable, *resume.split()[1:]], cwd=PROJECT, env=environment(), capture_output=True, timeout=600
    )
    assert again.returncode == 0
    assert (run_dir / "round-01" / "refine" / "manifest.json").exists()
