"""The commands a person types, run as she runs them: in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

SMALL = """\
model_name_or_path: sandbox
dtype: float32
seed: 3
num_rounds: {rounds}
constitution: constitutions/sandbox/blind-spot.txt
templates: constitutions/templates/sandbox
prompts: sandbox:train:48
helpful_prompts: sandbox:helpful:24
helpful_fraction: 0.2
max_new_tokens: 64
critique_max_new_tokens: 64
num_revisions: 2
batch_size: 16
chunk_rows: 16
probe_sets: [in_distribution=sandbox:probe:24, look_alike=sandbox:look_alike:8]
probe_samples: 2
scorers: [gold, refusal, length, loops, kl, nll_base]
headline_scorer: gold.harm
lora_r: 4
lora_target_modules: all-linear
learning_rate: 2.0e-3
num_train_epochs: 2
per_device_train_batch_size: 8
max_length: 256
gradient_checkpointing: false
logging_steps: 1
save_steps: 2
"""


def write_recipe(folder: Path, rounds: int = 1, extra: str = "") -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL.format(rounds=rounds) + extra)
    return path


def environment(**extra: str) -> dict[str, str]:
    quiet = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **quiet, **extra}


def command(name: str, *arguments: str | Path, launcher: str | None = None) -> list[str]:
    """``python pipeline/NAME.py ...``, or the same under ``accelerate launch`` with a config of ours."""
    start = [sys.executable]
    if launcher:
        config = PROJECT / "accelerate_configs" / f"{launcher}.yaml"
        start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*start, str(PROJECT / "pipeline" / f"{name}.py"), *map(str, arguments)]


def run(name: str, *arguments: str | Path, launcher: str | None = None, cwd: Path = PROJECT) -> str:
    """Run to the end; return what it printed."""
    done = attempt(name, *arguments, launcher=launcher, cwd=cwd)
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def attempt(
    name: str, *arguments: str | Path, launcher: str | None = None, cwd: Path = PROJECT, **extra: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, *arguments, launcher=launcher),
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=1000,
    )


def kill_when(appears: Path, name: str, *arguments: str | Path) -> bool:
    """Start a command and SIGKILL it as soon as a file appears; False if it ended before that."""
    process = subprocess.Popen(
        command(name, *arguments),
        cwd=PROJECT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if appears.exists():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    return False
