"""The model card of a round's adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.report.made_with import (
    as_hub_id,
    is_revised,
    left_out,
    precision_of,
    recipe_of,
    trained_on,
    way_of_revising,
)
from pipeline.report.numbers import end_of, interval, number
from pipeline.runs.files import read_json, write_text
from pipeline.runs.rundir import RunDir

TAGS = ["constitutional-ai", "lora", "sft", "trl"]

_HEADLINE = ("mean", "q99", "cvar_1pct")


def write_card(run: RunDir, round_: int) -> None:
    """Write ``README.md`` into the round's adapter folder from its manifests, with the drift once it is measured."""
    distill = read_json(run.stage_dir(round_, "distill") / "manifest.json")
    refine = read_json(run.stage_dir(round_, "refine") / "manifest.json")
    base = read_json(run.adapter_dir(round_) / "adapter_config.json")["base_model_name_or_path"]
    header: dict[str, Any] = {"library_name": "peft", "tags": TAGS}
    if hub_id := as_hub_id(base):
        header["base_model"] = hub_id
    curve, measured = distill["loss_curve"], run.drift(round_).exists()
    precision = precision_of(distill["engine"]) or "behind a server"
    start = "the frozen base" if distill["inputs"]["previous"] is None else f"the adapter of round {round_ - 1}"
    what = "Revisions" if is_revised(run, round_) else "Answers"
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=True).strip(),
        "---",
        "",
        f"# Round {round_} of constitutional self-training",
        "",
        f"A LoRA adapter trained on the model's own answers, {_answers(run, round_)}. Load it with",
        "",
        "```python",
        "from peft import AutoPeftModelForCausalLM",
        "",
        'model = AutoPeftModelForCausalLM.from_pretrained("this folder")',
        "```",
        "",
        f"* Base model: `{base}`, {precision}",
        f"* Constitution: sha256 `{refine['constitution']}`" if refine["constitution"] else "* Constitution: none",
        f"* Starts from: {start}",
        f"* Training rows: {trained_on(run, round_)}; {distill['tokens']['trained']:,} tokens",
        f"* Steps: {distill['steps']}",
        f"* Trainable parameters: {distill['trainable_parameters']:,}",
        f"* Loss: {curve[0]['loss']:.4g} to {curve[-1]['loss']:.4g}" if curve else "* Loss: not logged",
        f"* {what} left out: {left_out(run, round_)}",
        "",
        *(drift_section(read_json(run.drift(round_))["cells"]) if measured else []),
        "Trained on machine-written texts; "
        + ("measured only on the probe sets named above." if measured else "not measured yet."),
        "",
    ]
    write_text(run.adapter_dir(round_) / "README.md", "\n".join(lines))


def _answers(run: RunDir, round_: int) -> str:
    if not is_revised(run, round_):
        return "unrevised: the placebo arm of a run"
    sources = read_json(run.stage_dir(round_, "distill") / "manifest.json")["sources"]
    besides = ", and on its unrevised answers to other prompts" if "helpful" in sources else ""
    return way_of_revising(recipe_of(run, round_)) + besides


def drift_section(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The drift table of whole probe sets in Markdown, value and change each with its interval."""
    rows = [
        f"| {end_of(cell['scorer'], cell['tail'])} | {cell['probe_set']} | {cell['quantity']} "
        f"| {_change(cell)} | {value_of(cell)} |"
        for cell in cells
        if cell["slice"] is None and cell["quantity"] in _HEADLINE
    ]
    head = [
        "## Drift against round 0",
        "",
        "| score | probe set | quantity | change, 95% interval | value, 95% interval |",
        "|---|---|---|---|---|",
    ]
    return [*head, *rows, ""]


def value_of(cell: Mapping[str, Any]) -> str:
    """The value of a cell with its interval, or why there is none."""
    return f"not identified ({cell['why']})" if cell["value"] is None else f"{number(cell['value'])} {interval(cell)}"


def _change(cell: Mapping[str, Any]) -> str:
    value = cell.get("baseline_value")
    return "-" if value is None else f"{value:+.3g} {interval(cell, 'baseline_')}"
