"""Cards of runs that are written by hand: what they must say, and what they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from pipeline.exporting.data_card import data_card
from pipeline.exporting.model_card import model_card
from pipeline.exporting.weights import Trained
from pipeline.report.checkpoints import Checkpoint
from pipeline.runs.files import read_json, write_json, write_json_lines, write_text
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import TRAIN, to_table, write_table

FENCED = "# mine\nbe kind\n```\n</details> {{ 7 * 7 }}\n"
LOCAL = Trained(
    Path("adapter"), "/home/somebody/models/tiny", "/home/somebody/models/tiny", None, "bfloat16", "bfloat16"
)
ON_HUB = Trained(Path("adapter"), "org/base", "org/base", "v2", "bfloat16", "bfloat16")


def drift_cell(quantity: str, value: float | None, **more: Any) -> dict[str, Any]:
    cell = {"scorer": "harm", "tail": "upper", "probe_set": "panel", "slice": None, "quantity": quantity}
    cell |= {"value": value, "low": 0.5, "high": 2.0, "why": "too few"}
    return cell | {"baseline_value": -0.25, "baseline_low": -0.5, "baseline_high": None} | more


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    run = RunDir(tmp_path / "mine")
    recipe = {"model_name_or_path": "org/base", "lora_r": 8, "seed": 5, "critique": True, "num_revisions": 1}
    write_json(run.resolved, recipe | {"critic": "policy", "reviser": "/home/somebody/big"})
    for round_ in (0, 1, 2):
        cells = [drift_cell("mean", 1.0 + round_), drift_cell("cvar_1pct", None), drift_cell("mean", 9.0, slice="s")]
        write_json(run.drift(round_), {"headline": "harm", "level": 0.95, "cells": cells})
    for round_ in (1, 2):
        refine = {"constitution": "ab" * 32, "dropped": {"refinements.parquet": {"loop": round_}}}
        write_json(run.stage_dir(round_, "refine") / "manifest.json", refine)
        write_text(run.stage_dir(round_, "refine") / "constitution.txt", FENCED)
        distill = {
            "sources": {"revision": 100 * round_},
            "steps": 7,
            "inputs": {"previous": "cd" if round_ > 1 else None},
        }
        write_json(run.stage_dir(round_, "distill") / "manifest.json", distill)
        row = {"prompt": [], "completion": [], "prompt_id": "p", "sample": 0, "round": round_, "source": "revision"}
        write_table(run.stage_dir(round_, "distill") / "train.parquet", [to_table([row], TRAIN)], TRAIN)
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
    assert "In round 1, a fresh LoRA (rank 8) was trained on the frozen base with seed 5." in card.text
    assert "In round 2, the LoRA of the round before was trained further with seed 5." in card.text
    assert "In each round, answers were criticised by the model itself and rewritten by another model." in card.text
    assert "Amendments" not in card.text


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
    assert "answers were criticised by the model itself and rewritten by another model." in card.text


def rewrite(path: Path, **changes: Any) -> None:
    write_json(path, read_json(path) | changes)


def test_each_round_is_told_as_it_was_made(checkpoint: Checkpoint) -> None:
    run = checkpoint.run
    rewrite(run.resolved, lora_r=4, critic="base", seed=6, templates="/home/somebody/texts")
    changes = [
        *('critic: "policy" -> "base"', "lora_r: 8 -> 4", "seed: 5 -> 6"),
        'templates: "constitutions/templates" -> "/home/somebody/texts"',
        *("--- constitution (run)", "+++ constitution (now)", "@@ -2 +2 @@", "-be kind", "+be very kind"),
        "scorers.classifier:/home/somebody/tox: is new",
    ]
    later = {"after_round": 2, "reason": "later", "changes": ['reviser: "policy" -> "/home/somebody/big"']}
    write_json_lines(run.amendments, [{"after_round": 1, "reason": "too\nmild", "changes": changes}, later])
    refine = run.stage_dir(2, "refine")
    write_text(refine / "constitution.txt", "be very kind\n")
    rewrite(refine / "manifest.json", constitution="ef" * 32)
    counts = {"conversations": {1: 3, 2: 4}, "preferences": {1: 3, 2: 4}}
    model = model_card(checkpoint, ON_HUB, merged=False, base_model=None, repo_id=None)
    for text in (model, data_card(checkpoint, counts)):
        assert "In round 1, answers were criticised and rewritten by the model itself." in text
        assert "In round 2, answers were criticised by the untrained base and rewritten by the model itself." in text
        assert f"The text of round 1:\n\n````text\n{FENCED}````\n\nSHA-256 `{'ab' * 32}`." in text
        assert f"The text of round 2:\n\n```text\nbe very kind\n```\n\nSHA-256 `{'ef' * 32}`." in text
        told = text[text.index("## Amendments") :].split("```")[1].splitlines()[1:]
        assert told == [
            "after round 1: too mild",
            '  critic: "policy" -> "base"',
            "  lora_r: 8 -> 4",
            "  seed: 5 -> 6",
            "  templates: changed",
            "  constitution: the text changed",
            "  scorers: is new",
        ]
    assert "In round 1, a fresh LoRA (rank 8) was trained on the frozen base with seed 5." in model
    assert "In round 2, the LoRA of the round before was trained further with seed 6." in model
    # Of the first round nothing is told that came after it.
    first = model_card(checkpoint._replace(round=1), ON_HUB, merged=False, base_model=None, repo_id=None)
    assert "criticised and rewritten by the model itself" in first
    assert all(word not in first for word in ("Amendments", "untrained", "very kind", "seed 6"))


def test_no_critique_is_claimed_where_there_was_none(checkpoint: Checkpoint) -> None:
    rewrite(checkpoint.run.resolved, critique=False, num_revisions=2)
    model = model_card(checkpoint, ON_HUB, merged=False, base_model=None, repo_id=None)
    data = data_card(checkpoint, {"conversations": {1: 3, 2: 4}, "preferences": {1: 3, 2: 4}})
    for text in (model, data):
        assert "answers were rewritten by another model from principles alone, without critiques, in 2 passes." in text
        assert "criticised" not in text
    assert "# Revisions of mine, rounds 1 and 2\n" in data
    assert yaml.safe_load(data.split("---")[1])["pretty_name"] == "Revisions of mine, rounds 1 and 2"


def test_what_was_trained_on_is_told(checkpoint: Checkpoint) -> None:
    run = checkpoint.run
    text = model_card(checkpoint, ON_HUB, merged=False, base_model=None, repo_id=None)
    assert "it was trained on the revisions. What" in text
    distill = run.stage_dir(2, "distill")
    rewrite(distill / "manifest.json", sources={"helpful": 30, "revision": 70})
    rows = [{"prompt": [], "completion": [], "prompt_id": "p", "sample": 0, "round": r, "source": "x"} for r in (1, 2)]
    write_table(distill / "train.parquet", [to_table(rows, TRAIN)], TRAIN)
    rewrite(run.stage_dir(2, "refine") / "manifest.json", kept={"refinements.parquet": {"cut_off": 9}})
    text = model_card(checkpoint, ON_HUB, merged=False, base_model=None, repo_id=None)
    assert "it was trained on the revisions and on its unrevised answers to other prompts. What" in text
    assert "| 2 | 30 helpful, 70 revision (rounds 1 and 2) | 2 loop; kept all the same: 9 cut_off | 7 |" in text


@pytest.mark.parametrize(
    ("measured_in", "merged", "says"),
    [
        ("bfloat16", False, "Measured on the base in bfloat16; on a base in another precision"),
        ("4-bit nf4", True, "4-bit nf4, with the adapter not yet merged. Merged into the base in bfloat16, it is not"),
        (None, False, "Measured on a server's copy of the base; on a base"),
    ],
)
def test_what_was_measured_is_told(checkpoint: Checkpoint, measured_in: str | None, merged: bool, says: str) -> None:
    trained = ON_HUB._replace(measured_in=measured_in)
    assert says in model_card(checkpoint, trained, merged=merged, base_model=None, repo_id=None)


def test_a_name_that_was_given_has_no_revision_of_another(checkpoint: Checkpoint) -> None:
    text = model_card(checkpoint, ON_HUB, merged=False, base_model="me/base", repo_id=None)
    assert "a LoRA adapter for `me/base`, after" in text
