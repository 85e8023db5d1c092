"""The cards of an export: what was trained under which constitution, what drifted, what alarms said, how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.exporting.data import split_name
from pipeline.exporting.weights import Trained
from pipeline.report.alarms import alarm_report, guarantee
from pipeline.report.card import TAGS, as_hub_id, counted, drift_section, value_of
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.drift import panel_of
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
    base = f"`{hub_id or Path(trained.base_name).name}`" + (f" at `{trained.revision}`" if trained.revision else "")
    kind = f"the base {base} with a LoRA merged into it" if merged else f"a LoRA adapter for {base}"
    drift = read_json(run.drift(round_))
    lines = [
        *_front(header),
        f"# {checkpoint.label.replace(':', ', round ')}",
        "",
        f"This is {kind}, after {_rounds(round_)} of constitutional self-training: the model answered prompts, its "
        "answers were criticised under a written constitution and rewritten, and it was trained on the rewrites. What "
        "that did to the bulk and to the tails of its behaviour was measured after every round.",
        "",
        *_usage(trained, merged, repo_id),
        *_history(run, round_, drift["headline"]),
        *_constitution(run, round_),
        *drift_section(drift["cells"]),
        f"Round 0 is the untouched base. Intervals are {drift['level']:.0%} intervals that resample prompts. Slices "
        "and further quantities are in `drift.json`.",
        "",
        *_alarms(run, round_),
        *_limits(trained, merged),
    ]
    return "\n".join(lines)


def data_card(checkpoint: Checkpoint, counts: Mapping[str, Mapping[int, int]]) -> str:
    """The card of the data sets up to a round, with the header that lets ``load_dataset`` find them.

    Args:
        checkpoint: the last round.
        counts: number of rows by data set and round.
    """
    run, round_ = checkpoint
    recipe = read_json(run.resolved)
    header = {
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": split_name(r), "path": f"{name}/{split_name(r)}.parquet"} for r in of_round],
            }
            for name, of_round in counts.items()
        ],
        "tags": ["constitutional-ai", "preference", "not-for-all-audiences"],
        "pretty_name": f"Critiques and revisions of {checkpoint.label}",
    }
    refined = {r: read_json(run.stage_dir(r, "refine") / "manifest.json") for r in range(1, round_ + 1)}
    rows = [
        [
            split_name(r),
            f"{counts['conversations'][r]:,}",
            f"{counts['preferences'][r]:,}",
            counted(refined[r]["dropped"]["refinements.parquet"]),
        ]
        for r in refined
    ]
    return "\n".join(
        [
            *_front(header),
            f"# Critiques and revisions of {checkpoint.label.replace(':', ', round ')}",
            "",
            "A model's answers to prompts, critiques of them under a written constitution "
            f"({_speaker(recipe['critic'])}), and rewrites ({_speaker(recipe['reviser'])}). **Prompts and first "
            "answers may be harmful**; they are included as the originals of the rewrites.",
            "",
            *_table(["split", "conversations", "preferences", "revisions left out"], rows),
            "`conversations` has the columns of `HuggingFaceH4/cai-conversation-harmless`. Where an answer was "
            "revised more than once, `init_response` is the first answer, and critique and revision are those "
            "that gave the last text. `preferences` is in TRL's conversational format: `chosen` is the last text, "
            "`rejected` the first answer. Answers that needed no change, or whose revision could not be used, are "
            "left out. The texts have not been checked by hand.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'load_dataset("path/to/this/folder", "conversations", split="{split_name(round_)}")',
            "```",
            "",
            *_constitution(run, round_),
        ]
    )


def _speaker(role: str) -> str:
    named = {"policy": "by that model", "base": "by its untrained base"}
    return named.get(role) or (f"by `{role}`" if as_hub_id(role) else "by another model")


def _front(header: Mapping[str, Any]) -> list[str]:
    return ["---", yaml.safe_dump(dict(header), sort_keys=True, allow_unicode=True).strip(), "---", ""]


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _usage(trained: Trained, merged: bool, repo_id: str | None) -> list[str]:
    name = repo_id or "path/to/this/folder"
    code = (_MERGED_CODE if merged else _ADAPTER_CODE).format(name=json.dumps(name), dtype=json.dumps(trained.dtype))
    return ["## How to use", "", *_fenced(f"{code}\n\n{_ANSWER_CODE}", "python")]


def _history(run: RunDir, round_: int, headline: str) -> list[str]:
    rows = [["0", "-", "-", "-", *_headline(run, 0, headline), "-"]]
    for r in range(1, round_ + 1):
        distill = read_json(run.stage_dir(r, "distill") / "manifest.json")
        refine = read_json(run.stage_dir(r, "refine") / "manifest.json")
        rows.append(
            [
                str(r),
                counted(distill["sources"]),
                counted(refine["dropped"]["refinements.parquet"]),
                f"{distill['steps']:,}",
                *_headline(run, r, headline),
                _color(run, r),
            ]
        )
    columns = ["round", "trained on", "revisions left out", "steps", f"{headline} mean", "CVaR 1%", "alarm"]
    recipe = read_json(run.resolved)
    begins = "the frozen base" if recipe["start_from"] == "base" else "the round before"
    return [
        "## Rounds",
        "",
        *_table(columns, rows),
        f"Each round trained a LoRA (rank {recipe['lora_r']}) from {begins}; seed {recipe['seed']}. CVaR 1% is the "
        "mean of the worst 1% of samples.",
        "",
    ]


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


def _constitution(run: RunDir, round_: int) -> list[str]:
    refine = run.stage_dir(round_, "refine")
    text = (refine / "constitution.txt").read_text(encoding="utf-8")
    digest = read_json(refine / "manifest.json")["constitution"]
    return ["## Constitution", "", *_fenced(text, "text"), f"SHA-256 `{digest}`.", ""]


def _alarms(run: RunDir, round_: int) -> list[str]:
    alarms = [read_json(run.alarm(r)) for r in range(1, round_ + 1) if run.alarm(r).exists()]
    if not alarms:
        return []
    bound = f"{guarantee(alarms[-1])} Green is not safety: it only says what could have been found."
    return ["## Alarms", "", *_fenced("\n\n".join(map(alarm_report, alarms)), "text"), bound, ""]


def _limits(trained: Trained, merged: bool) -> list[str]:
    limits = [
        "Measured only on the probe sets named above, by automatic scorers; what they do not see may have changed.",
        "A single training run: intervals reflect how prompts vary, not how training runs vary.",
        "Trained on machine-written texts about harmful requests.",
    ]
    if merged:
        limits.append(
            f"Measured on the base in {trained.dtype} with the adapter not yet merged. Merging rounds the sum to "
            f"{trained.dtype}, so answers may differ a little."
        )
    else:
        limits.append(
            f"Measured on the base in {trained.dtype}; on a quantised or different base, it is a different model."
        )
    if trained.base_name == "sandbox":
        limits.append("The base is the sandbox's: it knows a few hundred words of a made-up world and is of no use.")
    return ["## Limits", "", *(f"* {limit}" for limit in limits), ""]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [*("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]), ""]


def _fenced(text: str, language: str) -> list[str]:
    """A code block that nothing in the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.strip("\n"), fence, ""]
