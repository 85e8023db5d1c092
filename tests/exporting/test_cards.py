"""Cards of runs that are written by hand: what they must say, and what they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from pipeline.exporting.cards import data_card, model_card
from pipeline.exporting.weights import Trained
from pipeline.report.checkpoints import Checkpoint
from pipeline.runs.files import write_json, write_text
from pipeline.runs.rundir import RunDir

FENCED = "# mine\nbe kind\n```\n</details> {{ 7 * 7 }}\n"
LOCAL = Trained(Path("adapter"), "/home/somebody/models/tiny", "/home/somebody/models/tiny", None, "bfloat16")
ON_HUB = Trained(Path("adapter"), "org/base", "org/base", "v2", "bfloat16")


def drift_cell(quantity: str, value: float | None, **more: Any) -> dict[str, Any]:
    cell = {"scorer": "harm", "tail": "upper", "probe_set": "panel", "slice": None, "quantity": quantity}
    cell |= {"value": value, "low": 0.5, "high": 2.0, "why": "too few"}
    return cell | {"baseline_value": -0.25, "baseline_low": -0.5, "baseline_high": None} | more


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    run = RunDir(tmp_path / "mine")
    recipe = {"start_from": "previous", "lora_r": 8, "seed": 5, "critic": "policy", "reviser": "/home/somebody/big"}
    write_json(run.resolved, recipe)
    for round_ in (0, 1, 2):
        cells = [drift_cell("mean", 1.0 + round_), drift_cell("cvar_1pct", None), drift_cell("mean", 9.0, slice="s")]
        write_json(run.drift(round_), {"headline": "harm", "level": 0.95, "cells": cells})
    for round_ in (1, 2):
        refine = {"constitution": "ab" * 32, "dropped": {"refinements.parquet": {"loop": round_}}}
        write_json(run.stage_dir(round_, "refine") / "manifest.json", refine)
        write_text(run.stage_dir(round_, "refine") / "constitution.txt", FENCED)
        write_json(
            run.stage_dir(round_, "distill") / "manifest.json", {"sources": {"revision": 100 * round_}, "steps": 7}
        )
    return Checkpoint(run, 2)


def test_an_adapter_of_a_hub_model(checkpoint: Checkpoint) -> None:
    card = ModelCard(model_card(checkpoint, ON_HUB, merged=False, base_model=None, repo_id="me/it"))
    assert (card.data.base_model, card.data.base_model_relation) == ("org/base", "adapter")
    assert "a LoRA adapter for `org/base` at `v2`, after 2 rounds" in card.text
    assert 'name = "me/it"' in card.text and 'dtype="bfloat16"' in card.text
    assert "AutoPeftModelForCausalLM.from_pretrained(name" in card.text
    assert "| 2 | 200 revision | 2 loop | 7 | 3 [0.5, 2] | not identified (too few) | not examined |" in card.text
    assert "| harm | panel | mean | -0.25 [-0.5, ∞] | 3 [0.5, 2] |" in card.text
    assert "| 9 [" not in card.text, "slices are in drift.json"
    assert "(rank 8) from the round before; seed 5" in card.text


def test_a_merged_model(checkpoint: Checkpoint) -> None:
    card = ModelCard(model_card(checkpoint, ON_HUB, merged=True, base_model=None, repo_id=None))
    assert (card.data.library_name, card.data.base_model_relation) == ("transformers", "finetune")
    assert "peft" not in card.text.replace("AutoPeft", "")
    assert "Merging rounds the sum to bfloat16" in card.text


def test_where_things_lay_is_nobodys_business(checkpoint: Checkpoint) -> None:
    texts = [
        model_card(checkpoint, LOCAL, merged=merged, base_model=name, repo_id=None)
        for merged in (False, True)
        for name in (None, "org/base")
    ]
    texts.append(data_card(checkpoint, {"conversations": {1: 3, 2: 4}, "preferences": {1: 3, 2: 4}}))
    for text in texts:
        assert "/home/somebody" not in text and str(checkpoint.run.path) not in text
    assert "for `tiny`, after" in texts[0] and ModelCard(texts[0]).data.base_model is None
    assert "for `org/base`, after" in texts[1] and ModelCard(texts[1]).data.base_model == "org/base"


def test_a_constitution_cannot_leave_its_block(checkpoint: Checkpoint) -> None:
    text = model_card(checkpoint, ON_HUB, merged=False, base_model=None, repo_id=None)
    assert f"````text\n{FENCED}````\n" in text


def test_the_data_card_names_every_split(checkpoint: Checkpoint) -> None:
    text = data_card(checkpoint, {"conversations": {1: 3, 2: 4}, "preferences": {1: 3, 2: 5}})
    header = yaml.safe_load(text.split("---")[1])
    assert [config["config_name"] for config in header["configs"]] == ["conversations", "preferences"]
    assert header["configs"][1]["data_files"] == [
        {"split": "round_01", "path": "preferences/round_01.parquet"},
        {"split": "round_02", "path": "preferences/round_02.parquet"},
    ]
    card = DatasetCard(text)
    assert "| round_02 | 4 | 5 | 2 loop |" in card.text
    assert "of them under a written constitution (by that model), and rewrites (by another model)" in card.text
