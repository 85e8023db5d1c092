"""What differs between checkpoints besides their scores: constitution, recipe, inputs, data, engine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from pipeline.comparing.comparable import recipe_at
from pipeline.inputs.recipe import diff_resolved
from pipeline.inputs.recipe_fields import Recipe
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.made_with import recipe_of
from pipeline.runs.files import read_json, read_json_lines


class Data(NamedTuple):
    """What a round trained on, and what it left out.

    Attributes:
        answers: number of answers sampled for training and helpful prompts.
        unusable: number of unusable answers, by reason.
        revisions: number of revisions made; a revised answer has one per pass.
        dropped: number of dropped revisions, by reason.
        kept: number of answers with a final revision that differs from them.
        trained: number of training rows, by source.
        steps: number of training steps.
    """

    answers: int
    unusable: Mapping[str, int]
    revisions: int
    dropped: Mapping[str, int]
    kept: int
    trained: Mapping[str, int]
    steps: int


class Difference(NamedTuple):
    """What sets a checkpoint apart from the baseline.

    Attributes:
        checkpoint: the checkpoint.
        constitution: unified diff, empty where the text is the same.
        recipe: differing keys, as ``key: baseline's -> this one's``.
        inputs: names of inputs of both runs whose content differs, whatever file names the recipes give.
        engine: differences in what it was sampled with, in the same form as ``recipe``.
        amendments: amendments that its run recorded up to it, as ``after round 1: why``.
    """

    checkpoint: Checkpoint
    constitution: list[str]
    recipe: list[str]
    inputs: list[str]
    engine: list[str]
    amendments: list[str]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(self[1:])


def find_differences(checkpoints: Sequence[Checkpoint]) -> list[Difference]:
    """What sets each checkpoint apart from the first."""
    baseline = checkpoints[0]
    text, recipe, inputs = constitution_of(baseline), _recipe(baseline), _inputs(baseline)
    return [
        Difference(
            one,
            list(
                difflib.unified_diff(
                    text.splitlines(),
                    constitution_of(one).splitlines(),
                    baseline.label,
                    one.label,
                    lineterm="",
                )
            ),
            diff_resolved(recipe, _recipe(one)),
            [name for name, digest in _inputs(one).items() if inputs.get(name, digest) != digest],
            diff_resolved(engine_of(baseline), engine_of(one)),
            [
                f"after round {entry['after_round']}: {entry['reason']}"
                for entry in read_json_lines(one.run.amendments)
                if entry["after_round"] < one.round
            ],
        )
        for one in checkpoints[1:]
    ]


def constitution_of(checkpoint: Checkpoint) -> str:
    """The constitution as a checkpoint's round used it; for round 0, that of round 1, else the run's."""
    used = checkpoint.run.stage_dir(max(checkpoint.round, 1), "refine") / "constitution.txt"
    path = used if used.exists() else checkpoint.run.constitution_copy
    return path.read_text(encoding="utf-8")


def round_data(checkpoint: Checkpoint) -> Data | None:
    """The counts of a round; None for round 0, which trains on nothing."""
    folders = [checkpoint.run.stage_dir(checkpoint.round, name) for name in ("generate", "refine", "distill")]
    paths = [folder / "manifest.json" for folder in folders]
    if not all(path.exists() for path in paths):
        return None
    generated, refined, distilled = (read_json(path) for path in paths)
    unusable: dict[str, int] = {}
    for reasons in generated["dropped"].values():
        for reason, count in reasons.items():
            unusable[reason] = unusable.get(reason, 0) + count
    return Data(
        sum(generated["rows"].values()),
        unusable,
        refined["rows"]["refinements.parquet"],
        refined["dropped"].get("refinements.parquet", {}),
        refined["rows"].get("pairs.parquet", 0),
        distilled["sources"],
        distilled["steps"],
    )


def engine_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint was sampled with: engine, model, precision, device, versions."""
    manifest = read_json(checkpoint.run.stage_dir(checkpoint.round, "measure") / "samples.manifest.json")
    return {**manifest["engine"], **manifest["versions"]}


def _recipe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint was made with and measured with: it may have been measured again after an amendment."""
    measured = recipe_at(checkpoint)
    names = {field.name for field in fields(Recipe) if field.metadata["group"] == "measure"}
    return recipe_of(*checkpoint) | {name: value for name, value in measured.items() if name in names}


def _inputs(checkpoint: Checkpoint) -> dict[str, str]:
    # The constitution is shown as a diff.
    return {name: digest for name, digest in read_json(checkpoint.run.inputs).items() if name != "constitution"}
