"""Whether numbers of two checkpoints may be compared: the same prompts, sampled and scored the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.inputs.recipe_fields import Recipe
from pipeline.report.checkpoints import Checkpoint, measured_rounds
from pipeline.report.made_with import recipe_of
from pipeline.runs.files import read_json
from pipeline.runs.rundir import COMPUTING
from pipeline.runs.tables import read_table

KINDS = ("probes", "sampling", "precision", "engine", "scorers")
"""What checkpoints are measured with. A difference in any of these changes numbers by itself."""

_MANIFESTS = ("samples.manifest.json", "scores.manifest.json")
# Fields of the `measure` group that are compared elsewhere, or that set how much is measured rather than what a number
# means.
_NOT_OF_SCORERS = {
    "probe_sets",
    "probe_samples",
    "probe_temperature",
    "probe_max_new_tokens",
    "probe_column",
    "probe_slice_column",
    "scorers",
    "batteries",
    "headline_scorer",
}
# Prefixes of the run's inputs that scores are made with.
_INSTRUMENTS = ("batteries.", "scorers.")
_PRECISION = ("dtype", "quantization")
# Compared elsewhere, or says where the engine runs rather than what it is.
_NOT_OF_ENGINE = {"model", "endpoints", *_PRECISION}


class Obstacle(NamedTuple):
    """One thing that keeps a checkpoint from being compared with the baseline."""

    kind: str
    checkpoint: Checkpoint
    text: str


def recipe_at(checkpoint: Checkpoint) -> dict[str, Any]:
    """The resolved recipe with which a checkpoint was measured: today's, with later amendments undone.

    A round measured again after an amendment counts as measured under it.
    """
    run = checkpoint.run
    of_rounds = {round_: _samples_settings(Checkpoint(run, round_)) for round_ in measured_rounds(run)}
    alike = [round_ for round_, settings in of_rounds.items() if settings == of_rounds[checkpoint.round]]
    return recipe_of(run, max(alike))


def probe_prompts(checkpoint: Checkpoint) -> dict[str, dict[str, str]]:
    """The prompts that a checkpoint was measured on: probe set -> prompt id -> slice; sets with samples first."""
    columns = ["probe_set", "prompt_id", "slice"]
    samples = checkpoint.run.stage_dir(checkpoint.round, "measure") / "samples.parquet"
    found: dict[str, dict[str, str]] = {}
    for path in (samples, checkpoint.run.scores(checkpoint.round)):
        for row in read_table(path, columns).group_by(columns, use_threads=False).aggregate([]).to_pylist():
            found.setdefault(row["probe_set"], {})[row["prompt_id"]] = row["slice"]
    return found


def find_obstacles(checkpoints: Sequence[Checkpoint]) -> list[Obstacle]:
    """What keeps checkpoints from being compared with the first of them.

    Probe sets that only one side has are not an obstacle: they are left out.

    Raises:
        InputError: a checkpoint has no probe set in common with the first.
    """
    baseline = checkpoints[0]
    prompts, measured = probe_prompts(baseline), _measured_with(baseline)
    found = []
    for checkpoint in checkpoints[1:]:
        theirs = probe_prompts(checkpoint)
        if not prompts.keys() & theirs.keys():
            raise InputError(
                f"{checkpoint.label} was measured on the probe sets {', '.join(theirs)}, and {baseline.label} on "
                f"{', '.join(prompts)}: nothing to compare. Give a probe set the same name in both recipes."
            )
        found += [
            Obstacle("probes", checkpoint, text)
            for name in prompts
            if name in theirs and (text := _other_prompts(name, prompts[name], theirs[name]))
        ]
        before, after = _chat_templates(baseline, checkpoint)
        if before != after:
            found.append(Obstacle("sampling", checkpoint, f"chat template is {_shown(after)}, not {_shown(before)}"))
        for kind, settings in _measured_with(checkpoint).items():
            for name in dict.fromkeys([*measured[kind], *settings]):
                before, after = measured[kind].get(name), settings.get(name)
                of_one_side = kind == "scorers" and (name in settings) != (name in measured[kind])
                if before != after and not of_one_side:
                    found.append(Obstacle(kind, checkpoint, f"{name} is {_shown(after)}, not {_shown(before)}"))
    return found


def require_comparable(checkpoints: Sequence[Checkpoint], despite: Sequence[str]) -> list[Obstacle]:
    """The obstacles that the user asked to overlook.

    Args:
        checkpoints: the baseline first.
        despite: kinds of obstacles to overlook, from ``KINDS``.

    Raises:
        InputError: there are others; the message names them, and says how to compare anyway.
    """
    obstacles = find_obstacles(checkpoints)
    if kinds := [kind for kind in KINDS if any(one.kind == kind for one in obstacles) and kind not in despite]:
        named = dict.fromkeys(
            f"  {one.checkpoint.label}: {one.kind}: {one.text}" for one in obstacles if one.kind in kinds
        )
        flags = " ".join(f"--despite {kind}" for kind in kinds)
        raise InputError(
            f"cannot be compared with {checkpoints[0].label}, since these differences change numbers by themselves:\n"
            + "\n".join(named)
            + f"\nMeasure them the same way, or compare anyway, on the prompts that they have in common: {flags}"
        )
    return obstacles


def _measured_with(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    recipe, inputs = recipe_at(checkpoint), read_json(checkpoint.run.inputs)
    folder = checkpoint.run.stage_dir(checkpoint.round, "measure")
    sampled, scored = (read_json(folder / name) for name in _MANIFESTS)
    sampling, scoring = _computed_with(sampled), _computed_with(scored)
    measuring = [field.name for field in fields(Recipe) if field.metadata["group"] == "measure"]
    return {
        "sampling": {
            "probe_temperature": recipe["probe_temperature"],
            "top_p": recipe["top_p"],
            "longest answer": recipe["probe_max_new_tokens"] or recipe["max_new_tokens"],
        },
        "precision": {name: sampled["engine"].get(name) for name in _PRECISION},
        "engine": sampling
        | {f"scoring {name}": value for name, value in scoring.items() if value != sampling.get(name)},
        "scorers": {name: recipe[name] for name in measuring if name in recipe and name not in _NOT_OF_SCORERS}
        | {name: digest for name, digest in inputs.items() if name.startswith(_INSTRUMENTS)},
    }


def _chat_templates(*pair: Checkpoint) -> list[str | None]:
    """Digests of the chat templates of two checkpoints; None where they are part of what the models are."""
    manifests = [read_json(one.run.stage_dir(one.round, "measure") / _MANIFESTS[0]) for one in pair]
    used = [manifest["chat_template"] for manifest in manifests]
    given = [recipe_at(one).get("chat_template_path") for one in pair]
    other_models = len({manifest["engine"]["model"] for manifest in manifests}) > 1
    return [None, None] if other_models and not any(given) else used


def _computed_with(manifest: Mapping[str, Any]) -> dict[str, Any]:
    engine = {name: value for name, value in manifest["engine"].items() if name not in _NOT_OF_ENGINE}
    return engine | {name: version for name, version in manifest["versions"].items() if name in COMPUTING}


def _samples_settings(checkpoint: Checkpoint) -> str:
    folder = checkpoint.run.stage_dir(checkpoint.round, "measure")
    return str(read_json(folder / _MANIFESTS[0])["settings"])


def _other_prompts(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    common = before.keys() & after.keys()
    if len(common) < max(len(before), len(after)):
        return f"{len(common):,} prompts of {name} are the same, of {len(before):,} and {len(after):,}"
    moved = sum(before[prompt] != after[prompt] for prompt in common)
    return f"{moved:,} prompts of {name} are in another slice" if moved else ""


def _shown(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return f"sha256 {text[:12]}" if re.fullmatch("[0-9a-f]{64}", text) else text
