from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from pipeline.report.card import write_card
from pipeline.report.drift import drift_cells
from pipeline.runs.files import read_json, write_json
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import TRAIN, to_table, write_table

SHA = "ab" * 32


RECIPE = {"model_name_or_path": "org/base", "critique": True, "num_revisions": 1}


def prepare(run: RunDir, base: str, curve: list[dict[str, float]] | None = None) -> None:
    distill = {
        "inputs": {"previous": None},
        "sources": {"helpful": 1200, "revision": 800},
        "tokens": {"trained": 123456},
        "steps": 40,
        "trainable_parameters": 9000,
        "loss_curve": [{"loss": 2.5}, {"loss": 0.125}] if curve is None else curve,
        "engine": {"dtype": "float32"},
    }
    write_json(run.stage_dir(1, "distill") / "manifest.json", distill)
    refine = {"constitution": SHA, "dropped": {"refinements.parquet": {"unchanged": 7, "loop": 2}}}
    write_json(run.stage_dir(1, "refine") / "manifest.json", refine)
    write_json(run.adapter_dir(1) / "adapter_config.json", {"base_model_name_or_path": base})
    write_json(run.resolved, RECIPE | {"critic": "policy", "reviser": "policy"})
    row = {"prompt": [], "completion": [], "prompt_id": "p", "sample": 0, "round": 1, "source": "revision"}
    write_table(run.stage_dir(1, "distill") / "train.parquet", [to_table([row], TRAIN)], TRAIN)


def card_of(run: RunDir) -> ModelCard:
    write_card(run, 1)
    return ModelCard.load(run.adapter_dir(1) / "README.md")


def test_the_hub_can_read_it(run: RunDir) -> None:
    prepare(run, "some-org/some-model")
    card = card_of(run)
    assert card.data.library_name == "peft"
    assert card.data.base_model == "some-org/some-model"
    assert "constitutional-ai" in card.data.tags
    assert "# Round 1" in card.text
    for fact in (SHA, "1,200 helpful, 800 revision", "123,456 tokens", "Steps: 40", "9,000", "2.5 to 0.125"):
        assert fact in card.text, fact
    assert "7 unchanged, 2 loop" in card.text
    assert "Drift against" not in card.text and "not measured yet" in card.text
    said = "answers, criticised and rewritten by the model itself, and on its unrevised answers to other prompts. Load"
    assert said in card.text
    assert "Starts from: the frozen base" in card.text


def test_it_says_that_the_base_was_quantised(run: RunDir) -> None:
    prepare(run, "some-org/some-model")
    path = run.stage_dir(1, "distill") / "manifest.json"
    quantised = {"dtype": "bfloat16", "quantization": {"bits": 4, "type": "nf4", "double": True}}
    write_json(path, read_json(path) | {"engine": quantised})
    assert "`some-org/some-model`, 4-bit nf4 (double), computed in bfloat16" in card_of(run).text


def test_the_placebo_arm_was_revised_by_nobody(run: RunDir) -> None:
    prepare(run, "org/model")
    run.resolved.unlink()  # the arm has no recipe of its own
    write_json(
        run.stage_dir(1, "refine") / "manifest.json", {"constitution": None, "dropped": {"refinements.parquet": {}}}
    )
    text = card_of(run).text
    assert "trained on the model's own answers, unrevised: the placebo arm of a run." in text
    assert "Training rows: 1,200 helpful, 800 unrevised;" in text and "Answers left out: none" in text


def test_an_adapter_that_goes_on_from_another(run: RunDir) -> None:
    prepare(run, "some-org/some-model")
    path = run.stage_dir(1, "distill") / "manifest.json"
    write_json(path, read_json(path) | {"inputs": {"previous": SHA}})
    assert "Starts from: the adapter of round 0" in card_of(run).text


def test_behind_a_server(run: RunDir) -> None:
    prepare(run, "some-org/some-model")
    path = run.stage_dir(1, "distill") / "manifest.json"
    write_json(path, read_json(path) | {"engine": {"name": "server", "model": "x", "endpoints": ["http://h/v1"]}})
    assert "Base model: `some-org/some-model`, behind a server" in card_of(run).text


def test_a_folder_is_no_hub_id(run: RunDir, sandbox_path: str) -> None:
    prepare(run, sandbox_path)
    assert card_of(run).data.base_model is None


@pytest.mark.parametrize("base", ["./my-model", "../models/tiny", "models/a/b"])
def test_a_relative_folder_is_no_hub_id_either(run: RunDir, base: str) -> None:
    # The Hub refuses a card whose base_model is not an id.
    prepare(run, base)
    assert card_of(run).data.base_model is None


def test_no_loss_was_logged(run: RunDir) -> None:
    prepare(run, "org/model", curve=[])
    assert "Loss: not logged" in card_of(run).text


def test_drift_with_what_is_missing(run: RunDir, write_scores: Callable[..., None]) -> None:
    prepare(run, "org/model")
    rng = np.random.default_rng(0)
    for round_ in (0, 1):
        few = rng.normal(size=(12, 1)) + round_
        write_scores(run, round_, {"harm": {"probe": few}, "gone": {"probe": np.full((12, 1), np.nan)}})
    cells = drift_cells(run, 1, {"harm": "high", "gone": "high"}, None, seed=0)
    write_json(run.drift(1), {"cells": cells})
    text = card_of(run).text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 * 3
    assert {line.count("|") for line in table} == {6}, "every row has the columns of the head"
    assert "not identified" in text
    mean: dict[str, Any] = next(c for c in cells if c["scorer"] == "harm" and c["quantity"] == "mean")
    change = f"{mean['baseline_value']:+.3g} [{mean['baseline_low']:.3g}, {mean['baseline_high']:.3g}]"
    assert f"| harm | probe | mean | {change} | {mean['value']:.3g} [" in text


def test_a_value_whose_lower_end_is_unbounded(run: RunDir) -> None:
    prepare(run, "org/model")
    cell = {"scorer": "nll", "tail": "lower", "probe_set": "p", "slice": None, "quantity": "q99"}
    cell |= {"value": 1.0, "low": None, "high": 2.0, "baseline_value": None, "why": "not bounded below"}
    write_json(run.drift(1), {"cells": [cell]})
    assert "1 [-∞, 2]" in card_of(run).text


def test_two_tails_are_told_apart(run: RunDir) -> None:
    prepare(run, "org/model")
    cells = []
    for tail, value in (("upper", 9.0), ("lower", 1.0)):
        cell = {"scorer": "length", "tail": tail, "probe_set": "p", "slice": None, "quantity": "q99"}
        own = {"value": value, "low": 0.0, "high": 10.0, "why": ""}
        change = {"baseline_value": 0.5, "baseline_low": 0.0, "baseline_high": 1.0, "baseline_why": ""}
        cells.append(cell | own | change)
    write_json(run.drift(1), {"cells": cells})
    rows = [line for line in card_of(run).text.splitlines() if line.startswith("| length")]
    assert len({tuple(row.split("|")[1:4]) for row in rows}) == 2, "which end is which can be read off"
