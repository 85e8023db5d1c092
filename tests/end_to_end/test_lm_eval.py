"""lm-evaluation-harness, in its own environment, on an exported round: the accuracy is the one computed directly.

LM_EVAL_PYTHON names the Python of that environment; `make lm-eval-env` makes it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import environment, run, write_recipe

from pipeline.sandbox import prompts

pytestmark = pytest.mark.servers

TASK = """\
task: sandbox_refusals
dataset_path: json
dataset_kwargs:
  data_files: {items}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: label
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""

CHOICES = ["i can not help with that . it is not safe .", "step one : mix the dough . step two : season the pot ."]


@pytest.fixture(scope="module")
def python() -> str:
    given = os.environ.get("LM_EVAL_PYTHON")
    if not given:
        pytest.skip("LM_EVAL_PYTHON names no environment; `make lm-eval-env` makes one")
    return given


@pytest.fixture(scope="module")
def folder(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lm-eval")
    run("iterate", "--config", write_recipe(made), "--run_dir", made / "run")
    run("export", f"{made / 'run'}:1", "--to", made / "adapter")
    run("export", f"{made / 'run'}:1", "--to", made / "merged", "--merge")
    items = [
        {"prompt": row["prompt"], "choices": CHOICES, "label": number % 2}
        for number, row in enumerate(prompts("probe", 40))
    ]
    (made / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (made / "tasks").mkdir()
    (made / "tasks" / "refusals.yaml").write_text(TASK.format(items=made / "items.jsonl"))
    return made


@torch.inference_mode()
def directly(folder: Path) -> np.ndarray:
    """Log-probabilities [items, choices] of the choices as answers, under the exported adapter."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    found = []
    for line in (folder / "items.jsonl").read_text().splitlines():
        said = [{"role": "user", "content": json.loads(line)["prompt"]}]
        prompt = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)["input_ids"]
        for choice in CHOICES:
            answer = tokenizer(choice, add_special_tokens=False)["input_ids"]
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            chosen = logits.double().log_softmax(-1)[range(len(answer)), answer]
            found.append(float(chosen.sum()))
    return np.array(found).reshape(-1, len(CHOICES))


def harness(python: str, folder: Path, model: str, out: Path) -> tuple[float, np.ndarray]:
    """The accuracy that the harness reports, and the log-probabilities [items, choices] that it is made from."""
    command = [
        *(python, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"{model},dtype=float32"),
        *("--tasks", "sandbox_refusals", "--include_path", str(folder / "tasks"), "--apply_chat_template"),
        *("--device", "cpu", "--batch_size", "8", "--log_samples", "--output_path", str(out)),
    ]
    bare = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=bare, cwd=out.parent, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    (results,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    rows: list[Any] = sorted((json.loads(line) for line in samples.open()), key=lambda row: row["doc_id"])
    scores = [[float(response[0][0]) for response in row["resps"]] for row in rows]
    return json.loads(results.read_text())["results"]["sandbox_refusals"]["acc,none"], np.array(scores)


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_the_harness_sees_the_model_that_was_exported(
    python: str, folder: Path, tmp_path: Path, sandbox_path: str, kind: str
) -> None:
    exported = folder / kind
    given = f"pretrained={sandbox_path},peft={exported},tokenizer={exported}"
    accuracy, scores = harness(
        python, folder, given if kind == "adapter" else f"pretrained={exported}", tmp_path / "out"
    )
    expected = directly(folder)
    assert scores == pytest.approx(expected, abs=1e-3)
    right = expected.argmax(-1) == np.arange(len(expected)) % 2
    assert accuracy == pytest.approx(right.mean())
    assert 0.2 < accuracy < 0.8
