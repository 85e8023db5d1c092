"""The model card of a round's adapter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.inputs.launch import precision
from pipeline.runs.files import read_json, write_text
from pipeline.runs.rundir import RunDir

_HEADLINE = ("mean", "q99", "cvar_1pct")


def write_card(run: RunDir, round_: int) -> None:
    """Write ``README.md`` into the round's adapter folder from its manifests, with the drift once it is measured."""
    distill = read_json(run.stage_dir(round_, "distill") / "manifest.json")
    refine = read_json(run.stage_dir(round_, "refine") / "manifest.json")
    base = read_json(run.adapter_dir(round_) / "adapter_config.json")["base_model_name_or_path"]
    hub_id = base if re.fullmatch(r"\w[\w.-]*/[\w.-]+", base) and not Path(base).exists() else None
    header: dict[str, Any] = {"library_name": "peft", "tags": ["constitutional-ai", "lora", "sft", "trl"]}
    if hub_id:
        header["base_model"] = hub_id
    curve, engine = distill["loss_curve"], distill["engine"]
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=True).strip(),
        "---",
        "",
        f"# Round {round_} of constitutional self-training",
        "",
        f"A LoRA adapter trained on the model's own answers, {_rewritten(refine)}. Load it with",
        "",
        "```python",
        "from peft import AutoPeftModelForCausalLM",
        "",
        'model = AutoPeftModelForCausalLM.from_pretrained("this folder")',
        "```",
        "",
        f"* Base model: `{base}`, {precision(engine['dtype'], engine.get('quantization'))}",
        f"* Constitution: sha256 `{refine['constitution']}`" if refine["constitution"] else "* Constitution: none",
        f"* Training rows: {_counted(distill['sources'])}; {distill['tokens']['trained']:,} tokens",
        f"* Steps: {distill['steps']}",
        f"* Trainable parameters: {distill['trainable_parameters']:,}",
        f"* Loss: {curve[0]['loss']:.4g} to {curve[-1]['loss']:.4g}" if curve else "* Loss: not logged",
        f"* Left out of training: {_counted(refine['dropped']['refinements.parquet'])}",
        "",
        *_drift(run, round_),
        "Trained on machine-written data about harmful requests, and measured on the probe sets named above alone.",
        "",
    ]
    write_text(run.adapter_dir(round_) / "README.md", "\n".join(lines))


def _rewritten(refine: dict[str, Any]) -> str:
    return "rewritten by its own critiques" if refine["constitution"] else "as they were: the placebo arm of a run"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _drift(run: RunDir, round_: int) -> list[str]:
    if not run.drift(round_).exists():
        return []
    rows = [
        "| " + " | ".join([_name(cell), cell["probe_set"], cell["quantity"], _change(cell), _value(cell)]) + " |"
        for cell in read_json(run.drift(round_))["cells"]
        if cell["slice"] is None and cell["quantity"] in _HEADLINE
    ]
    head = [
        "## Drift against round 0",
        "",
        "| score | probe set | quantity | change | value, 95% interval |",
        "|---|---|---|---|---|",
    ]
    return [*head, *rows, ""]


def _name(cell: dict[str, Any]) -> str:
    return f"{cell['scorer']}, low end" if cell["tail"] == "lower" else str(cell["scorer"])


def _change(cell: dict[str, Any]) -> str:
    return "-" if cell["baseline_value"] is None else f"{cell['baseline_value']:+.3g}"


def _value(cell: dict[str, Any]) -> str:
    if cell["value"] is None:
        return f"not identified ({cell['why']})"
    low = "-∞" if cell["low"] is None else f"{cell['low']:.3g}"
    high = "∞" if cell["high"] is None else f"{cell['high']:.3g}"
    return f"{cell['value']:.3g} [{low}, {high}]"
