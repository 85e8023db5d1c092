"""A real pretrained model without a chat template, and real dialogues, some longer than its context."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import attempt, run

RECIPE = """\
model_name_or_path: {model}
dtype: float32
num_rounds: 2
constitution: constitutions/harmless.txt
prompts: {prompts}
prompt_column: chosen
max_prompts: 30
max_new_tokens: 32
critique_max_new_tokens: 32
batch_size: 16
probe_sets: [red_team={probes}]
probe_column: chosen
probe_samples: 1
scorers: [refusal, length, loops, kl, nll_base]
keep_dropped: [cut_off, loop]
lora_r: 4
learning_rate: 1.0e-3
num_train_epochs: 1
per_device_train_batch_size: 4
max_length: 512
logging_steps: 1
"""


@pytest.fixture
def recipe(shared_data: Path, tmp_path: Path) -> Path:
    import gzip

    dialogues = shared_data / "hh_rlhf" / "harmless-base-test.jsonl.gz"
    with gzip.open(dialogues, "rt", encoding="utf-8") as lines:
        probes = [next(lines) for _ in range(12)]
    (tmp_path / "probes.jsonl").write_text("".join(probes), encoding="utf-8")
    path = tmp_path / "stories.yaml"
    path.write_text(
        RECIPE.format(
            model=shared_data / "models" / "stories260K-hf", prompts=dialogues, probes=tmp_path / "probes.jsonl"
        )
    )
    return path


@pytest.mark.slow
def test_a_model_without_chat_template_is_refused_and_then_runs_with_one(recipe: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    refused = attempt("iterate", "--config", recipe, "--run_dir", run_dir)
    assert refused.returncode == 1
    assert "has no chat template" in refused.stdout
    assert "chat_template_path: constitutions/templates/chat_plain.jinja" in refused.stdout
    assert not run_dir.exists()

    recipe.write_text(recipe.read_text() + "chat_template_path: constitutions/templates/chat_plain.jinja\n")
    printed = run("iterate", "--config", recipe, "--run_dir", run_dir)
    assert "held_out" in printed  # the probes are of the same file and are left out of training
    assert "cut_off" in printed

    manifest = json.loads((run_dir / "round-01" / "generate" / "manifest.json").read_text())
    responses = pq.read_table(run_dir / "round-01" / "generate" / "responses.parquet").to_pylist()
    too_long = [row for row in responses if row["finish_reason"] == "prompt_too_long"]
    assert 0 < len(too_long) == manifest["dropped"]["responses.parquet"]["prompt_too_long"]
    assert all(row["prompt_tokens"] + 32 > 512 and row["response"] == "" for row in too_long)
    assert any(len(row["prompt"]) > 1 for row in responses)  # dialogues of several turns are whole
    trained = pq.read_table(run_dir / "round-02" / "distill" / "train.parquet")
    assert trained.num_rows > 0
    assert (run_dir / "round-02" / "DONE").exists()
