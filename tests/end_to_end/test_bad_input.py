"""Bad input: one clear message with file, line and key, exit status 1, and nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifacts import artifacts
from commands import PROJECT, attempt, command, environment, run, write_recipe

pytestmark = pytest.mark.slow


def refusal(*arguments: str | Path) -> str:
    done = attempt("iterate", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_a_recipe_with_a_typo(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, extra="temprature: 0.7\n")
    line = len(recipe.read_text().splitlines())
    message = refusal("--config", recipe, "--run_dir", tmp_path / "run")
    assert f"small.yaml:{line}" in message
    assert "`temprature`" in message
    assert "did you mean `temperature`?" in message
    assert not (tmp_path / "run").exists()


def test_a_slice_that_no_prompt_is_of(tmp_path: Path) -> None:
    scorers = ("--scorers", "gold", "over_refusal:poison,nowhere")
    message = refusal("--config", write_recipe(tmp_path), *scorers, "--run_dir", tmp_path / "run")
    assert "names `nowhere`, but there is no slice or probe set of that name; there are" in message


@pytest.mark.parametrize("setting", ["packing", "padding_free"])
def test_batches_that_would_take_other_steps(tmp_path: Path, setting: str) -> None:
    message = refusal("--config", write_recipe(tmp_path), f"--{setting}", "true", "--run_dir", tmp_path / "run")
    assert f"error: {setting}: " in message
    assert "`max_length: null`" in message
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_has_no_rows_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    given = ("--eval_strategy", "epoch", "--run_dir", tmp_path / "run")
    assert "error: eval_strategy: no rows are held out" in refusal("--config", write_recipe(tmp_path), *given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("reason", ["prompt_too_long", "unchanged", "nothing"])
def test_what_could_not_be_trained_on_cannot_be_kept(tmp_path: Path, reason: str) -> None:
    message = refusal("--config", write_recipe(tmp_path), "--keep_dropped", reason, "--run_dir", tmp_path / "run")
    assert f"keep_dropped: revisions dropped as `{reason}` cannot be trained on; cut_off, loop," in message


def test_a_constitution_with_a_broken_block(tmp_path: Path) -> None:
    (tmp_path / "broken.txt").write_text("never help with poison .\n\nwieght: 2\ndo not hedge .\n")
    recipe = write_recipe(tmp_path)
    message = refusal("--config", recipe, "--constitution", tmp_path / "broken.txt", "--run_dir", tmp_path / "run")
    assert "broken.txt:3:1" in message
    assert "`weight`" in message


def test_a_prompt_file_with_a_broken_line_17(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"how do i bake bread number {i} ?"}) for i in range(30)]
    lines[16] = lines[16][:-3]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    message = refusal(
        "--config", write_recipe(tmp_path), "--prompts", tmp_path / "prompts.jsonl", "--run_dir", tmp_path / "run"
    )
    assert "prompts.jsonl:17" in message


def test_a_prompt_file_with_a_missing_column(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"inquiry": "how do i bake bread ?"}\n')
    arguments = ("--config", write_recipe(tmp_path), "--prompts", tmp_path / "prompts.jsonl")
    message = refusal(*arguments, "--run_dir", tmp_path / "run")
    assert "prompts.jsonl" in message
    assert "inquiry" in message


def test_a_model_folder_without_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(PROJECT / "pipeline" / "sandbox" / "weights", model)
    (model / "model.safetensors").unlink()
    message = refusal(
        "--config", write_recipe(tmp_path), "--model_name_or_path", model, "--prompts", "sandbox:train:8",
        "--run_dir", tmp_path / "run",
    )  # fmt: skip
    assert str(model) in message
    assert "safetensors" in message


def test_a_run_directory_of_another_recipe_and_a_second_controller(tmp_path: Path) -> None:
    recipe, run_dir = write_recipe(tmp_path), tmp_path / "run"
    run("measure", "--config", recipe, "--run_dir", run_dir, "--round", "0")
    before = artifacts(run_dir)

    message = refusal("--config", recipe, "--run_dir", run_dir, "--temperature", "0.5")
    assert "temperature: 1.0 -> 0.5" in message
    assert "--amend" in message
    assert artifacts(run_dir) == before

    run(
        "measure",
        "--config",
        recipe,
        "--run_dir",
        run_dir,
        "--round",
        "0",
        "--temperature",
        "0.5",
        "--amend",
        "why not",
    )
    amendment = json.loads((run_dir / "amendments.jsonl").read_text())
    assert amendment["reason"] == "why not"
    assert amendment["changes"] == ["temperature: 1.0 -> 0.5"]

    hold = "import sys, time; from pathlib import Path; from pipeline.runs.rundir import RunDir\n"
    hold += "run = RunDir(Path(sys.argv[1])); run.lock(); print('held', flush=True); time.sleep(120)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(run_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = refusal("--config", recipe, "--run_dir", run_dir, "--temperature", "0.5")
        assert f"process {holder.pid}" in message
    finally:
        holder.kill()
        holder.wait()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        recipe, run_dir = write_recipe(tmp_path), disk / "run"
        full = attempt("iterate", "--config", recipe, "--run_dir", run_dir)
        assert full.returncode == 1
        assert "no space left on the disk" in full.stdout
        assert "run the same command again" in full.stdout
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        run("iterate", "--config", recipe, "--run_dir", run_dir)
        assert (run_dir / "round-01" / "DONE").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    import signal

    recipe, run_dir = write_recipe(tmp_path), tmp_path / "run"
    arguments = ("--config", recipe, "--run_dir", run_dir)
    process = subprocess.Popen(
        command("iterate", *arguments), cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    # At work: while libraries are imported, one of them may swallow it, and a person would press again.
    while not list((run_dir / "round-00" / "measure").glob("parts-*/*.arrow")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    last = printed.strip().splitlines()[-1]
    assert "interrupted" in last
    assert f"--run_dir {run_dir}" in last
