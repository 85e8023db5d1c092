"""Recipes: one flat YAML file, overridden by the command line, on the conventions of TRL's parser, but strict.

`--config recipe.yaml --any_field value`; the command line wins over the file, the file over the defaults.
Unlike TRL's, this parser accepts no abbreviations, and it reports all unknown, repeated and ill-typed keys at once,
with file, line and the nearest valid key. The fields of this project are in `recipe_fields.py`.
"""

import json
import os
import sys
import textwrap
from collections.abc import Container, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.inputs.recipe_fields import SANDBOX, Recipe, find_problems
from pipeline.inputs.recipe_parser import (
    COMMAND_LINE,
    Entry,
    Place,
    Problem,
    read_file,
    read_flags,
    read_values,
)
from pipeline.inputs.recipe_values import BOOLEANS, Spec, describe_type, read_specs

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig

REACHING = frozenset(
    {
        "policy_endpoints",
        "api_keys",
        "max_concurrent_requests",
        "request_timeout",
        "request_retries",
        "vllm_python",
        "vllm_gpu_memory",
        "vllm_keep_running",
    }
)
"""How servers are reached, which affects no answer."""

UNRESOLVED = REACHING | frozenset(
    {
        # Locations, which may change between attempts.
        "output_dir",
        "resume_from_checkpoint",
        "run_dir",
        # Set by the launcher, differently for each process.
        "local_rank",
        # How much is shown on the console.
        "disable_tqdm",
        "log_level",
        "log_level_replica",
        # A secret.
        "hub_token",
    }
)
"""The only fields that the resolved recipe leaves out; they may change when a run is resumed."""


@dataclass(frozen=True)
class ParsedRecipe:
    """A recipe, ready to run.

    Attributes:
        recipe: fields of this project, with `run_dir` filled in.
        model: TRL's model and LoRA fields.
        training: TRL's training fields, fitted to this machine; the run's seed is `training.seed`.
        options: flags of the command, an instance of the dataclass given to `parse_recipe`, or None.
        source: the recipe file, or None.
        resolved: every field of the three except `UNRESOLVED`, as asked for, JSON-able and sorted: the same on
            every machine.
        given: values given by file and command line, without defaults.
    """

    recipe: Recipe
    model: "ModelConfig"
    training: "SFTConfig"
    options: Any
    source: Path | None
    resolved: dict[str, Any]
    given: dict[str, Any]


def parse_recipe(argv: Sequence[str], *, default_config: Path | None, command: type | None = None) -> ParsedRecipe:
    """Read the recipe that a command line asks for, and set the environment variables of its `env:`.

    Under a launcher, creating TRL's `SFTConfig` starts the process group: call `PartialState(timeout=...)`
    before this if stages may take longer than half an hour.

    Args:
        argv: arguments of the command, without its name. `--help` and `--help_all` print and exit.
        default_config: recipe to use when there is no `--config`.
        command: dataclass of flags that only the command line may give.

    Raises:
        InputError: the recipe cannot be read; names every mistake, each with its file, line and key.
        SystemExit: after `--help`.
    """
    flags, problems = read_flags(["--help" if word == "-h" else word for word in argv])
    asked = {entry.name for entry in flags}
    options = read_specs(command) if command else {}
    if asked & {"help", "help_all"}:
        sys.stdout.write(_help(command, options, everything="help_all" in asked))
        raise SystemExit(0)
    source = _source(flags, default_config)
    in_file, env, in_file_problems = read_file(source) if source else ([], {}, [])
    # Before TRL is imported: the Hub client reads HF_HUB_OFFLINE and the like at import.
    os.environ.update(env)
    from trl import ModelConfig, SFTConfig

    groups = {cls: read_specs(cls) for cls in (Recipe, ModelConfig, SFTConfig)}
    specs = merge_specs(*groups.values())
    merge_specs(specs, options)
    reading = read_values(in_file, [entry for entry in flags if entry.name != "config"], specs, options)
    values = {name: spec.default for name, spec in (specs | options).items()} | reading.values
    problems = [*in_file_problems, *problems, *reading.problems]
    whole = Place(str(source)) if source else COMMAND_LINE
    problems += [Problem(whole, text) for text in _missing(values, given=reading.places)]
    for name, text in find_problems(values).items():
        problems.append(Problem(reading.places.get(name, whole), f"`{name}` {text}"))
    if problems:
        problems.sort(key=lambda problem: (problem.place == COMMAND_LINE, problem.place.line))
        raise InputError("\n".join(map(str, problems)))
    resolved = {name: values[name] for name in sorted(specs.keys() - UNRESOLVED)}
    fitted = fit_to_machine(values, reading.values)
    if fitted["activation_checkpointing"] is None:
        # The new name of the same field; while it is unset, TRL's own default makes transformers warn.
        fitted["activation_checkpointing"] = fitted["gradient_checkpointing"]
    if values["run_dir"] is None:
        values["run_dir"] = _default_run_dir(source)
    values["run_dir"] = str(Path(values["run_dir"]).expanduser())

    def build(cls: type, names: Mapping[str, Spec], chosen: Mapping[str, Any]) -> Any:
        try:
            # Copies, since TRL's classes change the mappings they are given.
            return cls(**deepcopy({name: chosen[name] for name in names}))
        except (ValueError, TypeError, OSError) as error:
            raise InputError(f"{whole}: {cls.__name__} refuses these values: {error}") from error

    return ParsedRecipe(
        recipe=build(Recipe, groups[Recipe], values),
        model=build(ModelConfig, groups[ModelConfig], values),
        training=build(SFTConfig, groups[SFTConfig], fitted),
        options=build(command, options, values) if command else None,
        source=source,
        resolved=resolved,
        given=reading.values,
    )


def diff_resolved(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each field in which two resolved recipes differ: `learning_rate: 0.0002 -> 0.001`."""

    def show(resolved: Mapping[str, Any], name: str) -> str:
        return (
            json.dumps(resolved[name], ensure_ascii=False, sort_keys=True) if name in resolved else "(no such field)"
        )

    names = sorted(old.keys() | new.keys())
    return [f"{name}: {show(old, name)} -> {show(new, name)}" for name in names if show(old, name) != show(new, name)]


def fit_to_machine(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Training values, with the device fields that were not given set to what this machine can do.

    TRL trains in bf16 by default, and refuses to on a machine without it. Here bf16 is off where the device lacks
    it, and `use_cpu` is on where there is no accelerator or the launcher uses none. Under DeepSpeed `use_cpu` stays
    off, on a CPU as well: otherwise accelerate does not start DeepSpeed.
    """
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    fitted = dict(values)
    launched = {
        name: BOOLEANS.get(os.environ.get(f"ACCELERATE_USE_{name}", "no").lower(), False)
        for name in ("CPU", "DEEPSPEED")
    }
    if "use_cpu" not in given and not (values["deepspeed"] or launched["DEEPSPEED"]):
        fitted["use_cpu"] = launched["CPU"] or not torch.accelerator.is_available()
    if "ddp_backend" not in given and launched["DEEPSPEED"] and not torch.accelerator.is_available():
        fitted["ddp_backend"] = "gloo"
    if "bf16" not in given and (fitted["use_cpu"] or not is_torch_bf16_gpu_available()):
        fitted["bf16"] = False
    if fitted["bf16"] is False and not fitted["fp16"] and "ACCELERATE_MIXED_PRECISION" in os.environ:
        # The launch configuration's `mixed_precision: bf16` would win over a `bf16` that is off.
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    return fitted


def merge_specs(*groups: Mapping[str, Spec]) -> dict[str, Spec]:
    """Merge disjoint mappings into one.

    Raises:
        ValueError: two of them share a name, or a name is reserved: a mistake in the program.
    """
    merged: dict[str, Spec] = {}
    for group in groups:
        if clash := sorted(group.keys() & (merged.keys() | {"config", "env", "help", "help_all"})):
            raise ValueError(f"field names are taken: {', '.join(clash)}")
        merged.update(group)
    return merged


def _source(flags: Sequence[Entry], default: Path | None) -> Path | None:
    for entry in flags:
        if entry.name == "config":
            if len(entry.raw) != 1:
                raise InputError(f"command line: --config expects one file, found {len(entry.raw)}")
            return Path(entry.raw[0])
    return default


def _missing(values: Mapping[str, Any], given: Container[str]) -> list[str]:
    """What must be given and is not; a name in `given` was given, whether readable or not."""
    missing = [name for name, value in values.items() if value is MISSING]
    missing += [] if values["model_name_or_path"] else ["model_name_or_path"]
    if values["prompts"] is None and values["model_name_or_path"] != SANDBOX:
        missing.append("prompts")
    missing = [name for name in missing if name not in given]
    return [f"`{name}` is missing; give it in the recipe or as `--{name}`" for name in missing]


def _default_run_dir(source: Path | None) -> str:
    if source is None:
        raise InputError("command line: `--run_dir` is missing; without a recipe file there is no name for the run")
    path = source.resolve()
    return f"runs/{path.parent.name if path.stem == 'config' else path.stem}"


def _help(command: type | None, options: Mapping[str, Spec], *, everything: bool) -> str:
    """Help text of the fields, by group; with TRL's as well if `everything`, which imports TRL (seconds)."""
    specs = [*options.values(), *read_specs(Recipe).values()]
    about = (command.__doc__ or "").strip() + "\n\n" if command and command.__doc__ else ""
    usage = f"usage: {Path(sys.argv[0]).name} [--config RECIPE.yaml] [--FIELD VALUE ...]\n\n{about}"
    usage += "A field is written in the recipe as `field: value`; the command line wins over the recipe.\n"
    if everything:
        from trl import ModelConfig, SFTConfig

        specs += [*read_specs(ModelConfig).values(), *read_specs(SFTConfig).values()]
    else:
        usage += "Every field of TRL's SFTConfig and ModelConfig is accepted as well (model_name_or_path,\n"
        usage += "learning_rate, lora_r, seed, ...); --help_all lists them.\n"
    group = ""
    for spec in specs:
        if spec.group != group:
            group = spec.group
            usage += f"\n{group} (command line only):\n" if spec.name in options else f"\n{group}:\n"
        default = "required" if spec.default is MISSING else f"default {json.dumps(spec.default)}"
        text = f"{spec.help.replace('%%', '%')} Takes {describe_type(spec)}; {default}."
        usage += f"  --{spec.name}\n{textwrap.indent(textwrap.fill(text, 98), '      ')}\n"
    return usage
