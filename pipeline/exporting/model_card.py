"""The model card of an export: what was trained under which constitution, what drifted, what alarms said, its use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.exporting.sections import amendments, constitutions, fenced, front, table
from pipeline.exporting.weights import Trained
from pipeline.report.alarms import alarm_report, guarantee
from pipeline.report.card import TAGS, drift_section, value_of
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.drift import panel_of
from pipeline.report.made_with import as_hub_id, left_out, recipe_of, told_by_round, trained_on, way_of_revising
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir

_ADAPTER_CODE = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

name = {name}
model = AutoPeftModelForCausalLM.from_pretrained(name, dtype={dtype})
tokenizer = AutoTokenizer.from_pretrained(name)"""

_MERGED_CODE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

name = {name}
model = AutoModelForCausalLM.from_pretrained(name, dtype={dtype})
tokenizer = AutoTokenizer.from_pretrained(name)"""

_ANSWER_CODE = """\
inputs = tokenizer.apply_chat_template(
    [{"role": "user", "content": "how do i bake bread ?"}],
    add_generation_prompt=True, return_tensors="pt", return_dict=True,
)
answer = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""


def model_card(
    checkpoint: Checkpoint, trained: Trained, *, merged: bool, base_model: str | None, repo_id: str | None
) -> str:
    """The model card of an exported round, as Markdown with the Hub's header.

    Args:
        checkpoint: the exported round.
        trained: its adapter and base.
        merged: whether the adapter is merged into the base.
        base_model: Hub id that stands for the base, if one was given.
        repo_id: where it will be on the Hub, or None for a folder.
    """
    run, round_ = checkpoint
    hub_id = base_model or as_hub_id(trained.base)
    header: dict[str, Any] = {
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": TAGS,
    }
    if hub_id:
        header["base_model"] = hub_id
        header["base_model_relation"] = "finetune" if merged else "adapter"
    # Only the last part of a folder: where it lies is its owner's business.
    base = f"`{hub_id or Path(trained.base_name).name}`"
    if trained.revision and not base_model:
        base += f" at `{trained.revision}`"
    kind = f"the base {base} with a LoRA merged into it" if merged else f"a LoRA adapter for {base}"
    drift = read_json(run.drift(round_))
    lines = [
        *front(header),
        f"# {run.path.resolve().name}, round {round_}",
        "",
        f"This is {kind}, after {_rounds(round_)} of constitutional self-training: the model answered prompts, its "
        "answers were revised under a written constitution, and it was trained on the revisions"
        f"{_and_helpful(run, round_)}. What that did to the bulk and to the tails of its behaviour was measured after "
        "every round.",
        "",
        *_usage(trained, merged, repo_id),
        *_history(run, round_, drift["headline"]),
        *constitutions(run, round_),
        *amendments(run, round_),
        *drift_section(drift["cells"]),
        f"Round 0 is the untouched base. Intervals are {drift['level']:.0%} intervals that resample prompts. Slices "
        "and further quantities are in `drift.json`.",
        "",
        *_alarms(run, round_),
        *_limits(trained, merged),
    ]
    return "\n".join(lines)


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _usage(trained: Trained, merged: bool, repo_id: str | None) -> list[str]:
    name = repo_id or "path/to/this/folder"
    code = (_MERGED_CODE if merged else _ADAPTER_CODE).format(name=json.dumps(name), dtype=json.dumps(trained.dtype))
    return ["## How to use", "", *fenced(f"{code}\n\n{_ANSWER_CODE}", "python")]


def _and_helpful(run: RunDir, round_: int) -> str:
    manifests = [read_json(run.stage_dir(r, "distill") / "manifest.json") for r in range(1, round_ + 1)]
    helpful = any("helpful" in manifest["sources"] for manifest in manifests)
    return " and on its unrevised answers to other prompts" if helpful else ""


def _history(run: RunDir, round_: int, headline: str) -> list[str]:
    rounds = range(1, round_ + 1)
    rows = [["0", "-", "-", "-", *_headline(run, 0, headline), "-"]]
    for r in rounds:
        steps = read_json(run.stage_dir(r, "distill") / "manifest.json")["steps"]
        measured = [*_headline(run, r, headline), _color(run, r)]
        rows.append([str(r), trained_on(run, r), left_out(run, r), f"{steps:,}", *measured])
    columns = ["round", "trained on", "revisions left out", "steps", f"{headline} mean", "CVaR 1%", "alarm"]
    return [
        "## Rounds",
        "",
        *table(columns, rows),
        told_by_round({r: f"answers were {way_of_revising(recipe_of(run, r))}" for r in rounds}),
        told_by_round({r: _training(run, r) for r in rounds}),
        "CVaR 1% is the mean of the worst 1% of samples.",
        "",
    ]


def _training(run: RunDir, round_: int) -> str:
    recipe = recipe_of(run, round_)
    if read_json(run.stage_dir(round_, "distill") / "manifest.json")["inputs"]["previous"] is None:
        return f"a fresh LoRA (rank {recipe['lora_r']}) was trained on the frozen base with seed {recipe['seed']}"
    # It keeps its rank, whatever the recipe says by then.
    return f"the LoRA of the round before was trained further with seed {recipe['seed']}"


def _headline(run: RunDir, round_: int, headline: str) -> list[str]:
    cells = read_json(run.drift(round_))["cells"]
    # A headline that is a question score has a set of its own.
    of_headline = [c for c in cells if c["scorer"] == headline and c["slice"] is None]
    panel = panel_of(of_headline) or of_headline[0]["probe_set"]
    of = {c["quantity"]: value_of(c) for c in reversed(of_headline) if c["probe_set"] == panel}
    return [of[quantity] for quantity in ("mean", "cvar_1pct")]


def _color(run: RunDir, round_: int) -> str:
    path = run.alarm(round_)
    return str(read_json(path)["color"]) if path.exists() else "not examined"


def _alarms(run: RunDir, round_: int) -> list[str]:
    alarms = [read_json(run.alarm(r)) for r in range(1, round_ + 1) if run.alarm(r).exists()]
    if not alarms:
        return []
    bound = f"{guarantee(alarms[-1])} Green is not safety: it only says what could have been found."
    return ["## Alarms", "", *fenced("\n\n".join(map(alarm_report, alarms)), "text"), bound, ""]


def _limits(trained: Trained, merged: bool) -> list[str]:
    limits = [
        "Measured on prompts of this run alone, by automatic scorers; what they do not see may have changed.",
        "A single training run: intervals reflect how prompts vary, not how training runs vary.",
        "Trained on machine-written texts.",
        _measured_on(trained, merged),
    ]
    if trained.base_name == "sandbox":
        limits.append("The base is the sandbox's: it knows a few hundred words of a made-up world and is of no use.")
    return ["## Limits", "", *(f"* {limit}" for limit in limits), ""]


def _measured_on(trained: Trained, merged: bool) -> str:
    where = f"the base in {trained.measured_in}" if trained.measured_in else "a server's copy of the base"
    if not merged:
        return f"Measured on {where}; on a base in another precision, or a different base, it is a different model."
    measured = f"Measured on {where}, with the adapter not yet merged."
    if trained.measured_in == trained.dtype:
        return f"{measured} Merging rounds the sum to {trained.dtype}, so answers may differ a little."
    return f"{measured} Merged into the base in {trained.dtype}, it is not quite the model that was measured."
