"""vLLM as a run starts it: a whole run, its numbers beside the local engine's, and no process left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3600)]

PROJECT = Path(__file__).resolve().parents[2]
MARK = "PIPELINE_TEST_MARK"

RECIPE = """\
model_name_or_path: sandbox
dtype: float32
seed: 5
num_rounds: 1
constitution: constitutions/sandbox/blind-spot.txt
templates: constitutions/templates/sandbox
prompts: sandbox:train:120
max_new_tokens: 64
critique_max_new_tokens: 64
num_revisions: 2
critic: base
reviser: base
batch_size: 64
probe_sets: [in_distribution=sandbox:probe:200, look_alike=sandbox:look_alike:50]
probe_samples: 4
scorers: [gold, refusal, length, loops, kl, nll_base, likelihood]
batteries: [constitutions/batteries/sandbox/harm.txt]
headline_scorer: gold.harm
lora_r: 8
lora_target_modules: all-linear
learning_rate: 5.0e-3
num_train_epochs: 2
per_device_train_batch_size: 16
max_length: 256
gradient_checkpointing: false
policy_engine: vllm
"""


def environment(mark: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", MARK: mark}


def start(name: str, *arguments: str | Path, mark: str) -> subprocess.Popen[str]:
    return launch([sys.executable, PROJECT / "pipeline" / f"{name}.py", *arguments], mark)


def launch(command: Sequence[str | Path], mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=PROJECT,
        env=environment(mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(name: str, *arguments: str | Path, mark: str = "-") -> str:
    process = start(name, *arguments, mark=mark)
    said, _ = process.communicate(timeout=3000)
    assert process.returncode == 0, said
    return said


def marked(mark: str) -> list[str]:
    """Command lines of the living processes that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # gone meanwhile, or not ours
            continue
    return found


def wait_until_none(mark: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, vllm_python: str) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "served.yaml"
    path.write_text(RECIPE + f"vllm_python: {vllm_python}\n")
    return path


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    """A whole run on vLLM."""
    mark, folder = uuid.uuid4().hex, recipe.parent / "run"
    said = run("iterate", "--config", recipe, "--run_dir", folder, mark=mark)
    assert "vLLM: ready after" in said
    wait_until_none(mark, 0.0)
    return folder


@pytest.fixture(scope="module")
def measured_locally(finished: Path, recipe: Path) -> Path:
    """The same checkpoints, measured again by the local engine."""
    folder = recipe.parent / "locally"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(".lock*"))
    for round_ in ("0", "1"):
        run("measure", "--run_dir", folder, "--round", round_, "--policy_engine", "local", "--amend", "another engine")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def means(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """The cells of a drift table's means."""
    cells = [cell for cell in read(path)["cells"] if cell["quantity"] == "mean" and cell["value"] is not None]
    cells = [cell for cell in cells if cell["slice"] is None]
    return {(cell["scorer"], cell["tail"], cell["probe_set"]): cell for cell in cells}


def test_a_whole_run_is_complete_and_says_what_ran_it(finished: Path) -> None:
    assert (finished / "round-01" / "DONE").exists()
    for stage in ("generate/manifest.json", "refine/manifest.json", "measure/samples.manifest.json"):
        engine = read(finished / "round-01" / stage)["engine"]
        assert engine == {
            "name": "vllm",
            "version": engine["version"],
            "model": "sandbox",
            "dtype": "float32",
            "device": "cpu",
            "quantization": None,
        }
    assert read(finished / "round-01" / "refine" / "manifest.json")["roles"]["critic"]["name"] == "vllm"


def test_both_engines_are_on_record(finished: Path, measured_locally: Path) -> None:
    manifest = Path("round-01") / "measure" / "samples.manifest.json"
    assert [read(run / manifest)["engine"]["name"] for run in (finished, measured_locally)] == ["vllm", "transformers"]
    amendments = (measured_locally / "amendments.jsonl").read_text()
    assert "policy_engine" in amendments and "another engine" in amendments


@pytest.mark.parametrize("round_", ["round-00", "round-01"])
def test_the_drift_table_agrees_with_the_local_engines_within_the_noise_floor(
    round_: str, finished: Path, measured_locally: Path
) -> None:
    floor = means(finished / "round-00" / "noise_floor.json")
    ours, theirs = (means(run / round_ / "drift.json") for run in (finished, measured_locally))
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for key, cell in ours.items():
        again = floor[key]
        if key[0].startswith("likelihood"):  # no sampling is in it
            assert cell["value"] == pytest.approx(theirs[key]["value"], abs=1e-3), key
            continue
        # Half the interval of round 0's difference from itself, drawn again: two standard errors of what noise alone
        # does. A later policy's answers spread wider or less so, and of fifty means one lies beyond two.
        noise = ((again["baseline_high"] or 0.0) - (again["baseline_low"] or 0.0)) / 2
        other = theirs[key]
        width = max(cell["high"] - cell["low"], other["high"] - other["low"])
        limit = 2 * noise * width / (again["high"] - again["low"]) if noise else width
        assert abs(cell["value"] - other["value"]) <= limit, key


def test_a_complete_run_starts_no_server(finished: Path) -> None:
    said = run("iterate", "--run_dir", finished)
    assert "is complete" in said and "vLLM" not in said


START = """
import sys, time, logging
from pathlib import Path
from pipeline.engines.vllm_process import Vllm, VllmServers
servers = VllmServers(Vllm(sys.argv[1], sys.argv[2], None, "float32", 8, None, 1, 0.9, Path(sys.argv[3])))
print("up", servers.addresses()[0].url, flush=True)
time.sleep(600)
"""


def start_vllm(python: str, model: str, folder: Path, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, python, model, str(folder)],
        cwd=PROJECT,
        env=environment(mark),
        stdout=subprocess.PIPE,
        text=True,
    )


def said_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_signal_while_it_serves(
    number: signal.Signals, vllm_python: str, sandbox_path: str, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    process = start_vllm(vllm_python, sandbox_path, tmp_path, mark)
    assert said_by(process).startswith("up")
    assert len(marked(mark)) >= 4, "this one, its guard, vLLM's server and its engine"
    process.send_signal(number)
    process.wait()
    wait_until_none(mark, 30.0)


def test_processes_of_a_node_share_one_server(vllm_python: str, sandbox_path: str, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    processes = [start_vllm(vllm_python, sandbox_path, tmp_path, mark) for _ in range(2)]
    said = {said_by(process) for process in processes}
    assert len(said) == 1 and said.pop().startswith("up http://127.0.0.1:")
    assert len(list(tmp_path.glob("*.log"))) == 1
    for process in processes:
        process.kill()
        process.wait()
    wait_until_none(mark, 30.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_run_that_is_stopped_while_vllm_starts(
    number: signal.Signals, recipe: Path, tmp_path: Path
) -> None:
    mark, folder = uuid.uuid4().hex, tmp_path / "run"
    process = start("iterate", "--config", recipe, "--run_dir", folder, mark=mark)
    log = folder / "logs" / "vllm"
    deadline = time.monotonic() + 240
    while not [path for path in log.glob("*.log") if path.stat().st_size] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(marked(mark)) >= 3
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    wait_until_none(mark, 30.0)
    if number == signal.SIGINT:
        assert process.returncode == 130 and "interrupted" in said


def test_a_vllm_that_cannot_start_ends_the_run_with_its_own_words(recipe: Path, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    process = start(
        "iterate", "--config", recipe, "--run_dir", tmp_path / "run", "--vllm_max_model_len", "100000", mark=mark
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "vLLM ended while starting" in said and "max_model_len" in said
    wait_until_none(mark, 0.0)


def test_two_processes_share_a_server_that_keeps_running_and_pay_for_no_answer_twice(recipe: Path) -> None:
    mark, folder = uuid.uuid4().hex, recipe.parent / "two"
    fewer = ["--prompts", "sandbox:train:60", "--probe_sets", "in_distribution=sandbox:probe:300"]
    command = [Path(sys.executable).with_name("accelerate"), "launch", "--config_file"]
    command += [PROJECT / "accelerate_configs" / "cpu_2proc.yaml", PROJECT / "pipeline" / "iterate.py"]
    command += ["--config", recipe, "--run_dir", folder, "--vllm_keep_running", "true", *fewer]

    first = launch(command, mark)
    answers = folder / "answers-under-way"
    deadline = time.monotonic() + 600
    while len(kept := [line for path in answers.glob("*.jsonl") for line in path.read_text().splitlines()]) < 100:
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
        time.sleep(0.02)
    for process in psutil.process_iter():  # the launcher puts its processes into sessions of their own
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and any("iterate.py" in word for word in process.cmdline()):
                process.kill()
    first.communicate()
    wait_until_none(mark, 60.0)
    again = launch(command, mark)
    said, _ = again.communicate(timeout=1200)
    assert again.returncode == 0, said
    told = [line for line in said.splitlines() if "answers of an earlier launch" in line]
    assert told and int(told[0].rsplit(" ", 1)[1].replace(",", "")) >= len([line for line in kept if line]) - 2
    servers = [path.read_text() for path in (folder / "logs" / "vllm").glob("*.log")]
    starts = sum(text.count("Application startup complete") for text in servers)
    assert starts == 2, "one a launch: it ran on while the policy was trained"
    manifest = read(folder / "round-01" / "measure" / "samples.manifest.json")
    assert manifest["timing"]["processes"] == 2 and manifest["engine"]["name"] == "vllm"
    samples = pq.read_table(folder / "round-00" / "measure" / "samples.parquet", columns=["prompt_id", "sample"])
    assert samples.num_rows == len({tuple(row.values()) for row in samples.to_pylist()}) == 1200
    assert not answers.exists()
    wait_until_none(mark, 0.0)
