"""Whether an adapter has the LoRA that a recipe asks for: a round that continues it cannot give it another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.runs.files import read_json

VALUES = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
LISTS = {
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
}
"""Recipe key -> key of ``adapter_config.json``."""

_SHORTENED = 20
"""PEFT may write as many module names or more in a shorter way."""


def _differences(settings: Mapping[str, Any], adapter: Path, changed: Sequence[str] = ()) -> dict[str, Any]:
    """The LoRA fields in which a recipe and a trained adapter differ, each with the adapter's value.

    What the recipe leaves to the library (``lora_target_modules`` unset or ``all-linear``) does not say which names
    the adapter must have.

    Args:
        settings: the LoRA fields of the recipe, by name.
        adapter: folder of the adapter.
        changed: fields that an amendment changes. Of these, one that cannot be compared counts as different.
    """
    config = read_json(adapter / "adapter_config.json")
    found = {name: config[key] for name, key in VALUES.items() if settings[name] != config[key]}
    for name, key in LISTS.items():
        wanted, has = _names(settings[name]), _names(config[key])
        unknown = not wanted or wanted == {"all-linear"} or len(wanted) >= _SHORTENED
        if wanted != has and (not unknown or name in changed):
            found[name] = config[key]
    return found


def require_same_lora(settings: Mapping[str, Any], adapter: Path, changed: Sequence[str] = ()) -> None:
    """Refuse to continue an adapter under LoRA fields that it was not trained with; arguments as above.

    Raises:
        InputError: there are such fields; names each, with both values.
    """
    if found := _differences(settings, adapter, changed):
        named = "\n  ".join(f"{name}: {settings[name]}, but the adapter has {has}" for name, has in found.items())
        raise InputError(
            f"{adapter}: `start_from: previous` continues this adapter, whose LoRA stays as it was first trained:\n"
            f"  {named}\nGive these fields the adapter's values, train fresh adapters (`start_from: base`), or start "
            "a new --run_dir."
        )


def _names(value: str | Sequence[str] | None) -> set[str]:
    return {value} if isinstance(value, str) else set(value or ())
