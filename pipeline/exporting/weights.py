"""What a round trained, as a folder that plain transformers and PEFT load: the adapter, or base and adapter merged."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import EngineError, InputError, RunError
from pipeline.inputs.model import model_digest, require_model_folder, resolve_model
from pipeline.report.made_with import precision_of, recipe_of
from pipeline.runs.files import file_sha256, read_json, write_json
from pipeline.runs.rundir import WEIGHTS, RunDir

_COPIED = frozenset({".safetensors", ".json", ".jinja", ".txt"})
_WEIGHTS = ("adapter_config.json", WEIGHTS)


class Trained(NamedTuple):
    """A round's adapter and the base that it belongs to.

    Attributes:
        adapter: folder of the adapter, with tokenizer and chat template.
        base: Hub id or folder of the base model.
        base_name: the base as the recipe names it.
        revision: revision of the base on the Hub.
        dtype: precision in which the round was trained.
        measured_in: precision in which it was measured, in words; None behind a server, which does not say.
    """

    adapter: Path
    base: str
    base_name: str
    revision: str | None
    dtype: str
    measured_in: str | None

    @property
    def base_is_local(self) -> bool:
        """Whether the base is a folder on this machine rather than a Hub id."""
        return Path(self.base).is_dir()


def find_trained(run: RunDir, round_: int) -> Trained:
    """What round ``round_`` trained, checked against the digests that the run recorded.

    Raises:
        InputError: it is round 0, or its base has changed since.
        RunError: the adapter is missing or damaged.
    """
    if round_ == 0:
        raise InputError(f"{run.path}:0: round 0 is the untouched base, so there is nothing to export.")
    manifest = read_json(run.stage_dir(round_, "distill") / "manifest.json")
    folder = run.adapter_dir(round_)
    for name in _WEIGHTS:
        if not (folder / name).exists() or file_sha256(folder / name) != manifest["outputs"]["adapter"][name]:
            raise RunError(f"{folder / name}: missing or damaged; restore it from a copy of the run.")
    engine = manifest["engine"]
    name, recipe, digest = str(engine["model"]), recipe_of(run, round_), read_json(run.inputs)["model"]
    base = resolve_model(name)
    recorded = read_json(folder / "adapter_config.json")["base_model_name_or_path"]
    if not Path(base).is_dir() and Path(recorded).is_absolute():
        base = str(recorded)  # the recipe names a folder relative to where the run was begun
    require_model_folder(base)
    if Path(base).is_dir() and model_digest(base, None) != digest:
        raise InputError(
            f"{base}: is not the base that {run.path} was trained on (its files changed). On another base the adapter "
            "produces garbage; restore the old files."
        )
    revision = None if Path(base).is_dir() else digest.rpartition("@")[2]  # of a Hub id: its commit
    return Trained(folder, base, name, revision, str(recipe["dtype"]), precision_of(engine))


def write_adapter(trained: Trained, folder: Path, base_model: str | None) -> None:
    """Copy the adapter with its tokenizer, naming the base that plain PEFT should load under it.

    Args:
        trained: what to copy.
        folder: where to write it.
        base_model: Hub id that stands for the base; the run's own base if None.
    """
    _copy(trained.adapter, folder, but=set())
    config = read_json(folder / "adapter_config.json")
    config["base_model_name_or_path"] = base_model or trained.base
    config["revision"] = None if base_model else trained.revision
    write_json(folder / "adapter_config.json", config)


def write_merged(trained: Trained, folder: Path) -> None:
    """Add the adapter to its base, loaded unquantised in the run's precision, and write the whole model.

    Raises:
        InputError: the base's own weights are quantised.
        EngineError: base or adapter cannot be loaded, or the sum is not finite.
    """
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    source = {"revision": trained.revision, "trust_remote_code": False}
    try:
        if getattr(AutoConfig.from_pretrained(trained.base, **source), "quantization_config", None):
            raise InputError(
                f"{trained.base_name}: its weights are quantised, and a LoRA merged into quantised weights is rounded "
                "away in part, so the merged model would not be the one that was measured. Export the adapter "
                "(without --merge)."
            )
        base = AutoModelForCausalLM.from_pretrained(trained.base, dtype=trained.dtype, use_safetensors=True, **source)
        model = PeftModel.from_pretrained(base, str(trained.adapter)).merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise EngineError(f"{trained.base_name}: cannot be merged with {trained.adapter}: {error}") from error
    model.save_pretrained(folder)
    _copy(trained.adapter, folder, but=set(_WEIGHTS))


def _copy(source: Path, folder: Path, but: set[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.suffix in _COPIED and path.name not in but:
            shutil.copyfile(path, folder / path.name)
