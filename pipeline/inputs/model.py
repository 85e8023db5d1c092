"""Which model a recipe means, and whether its folder can be one."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError
from pipeline.inputs.recipe_fields import SANDBOX
from pipeline.runs.files import file_sha256, json_sha256

_HASHED_WHOLE = 2 * 1024**3


def resolve_model(name: str) -> str:
    """The Hub id that ``model_name_or_path`` means, or the absolute path of the folder."""
    if name == SANDBOX:
        from pipeline.sandbox import model_path

        return str(model_path())
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def require_model_folder(model: str) -> None:
    """Check a local folder before the library does, to say plainly what it lacks. Hub ids pass.

    Raises:
        InputError: the folder has no config, or no safetensors weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise InputError(f"{model}: no such folder (model_name_or_path).")
        return
    if not (folder / "config.json").exists():
        raise InputError(f"{model}: no config.json in this folder; model_name_or_path must name a model folder.")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{model}: no *.safetensors weights in this folder. Pickled weights are not loaded: convert them with "
            "`model.save_pretrained(folder)`, which writes safetensors."
        )


def model_digest(model: str, revision: str | None) -> str:
    """What identifies the base model of a run: a Hub id with its revision, or the bytes of a local folder.

    Files over 2 GB count by name and size: hashing 140 GB of weights at every start would take minutes.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{revision or 'main'}"
    files = [p for p in sorted(folder.iterdir()) if p.suffix in {".json", ".safetensors", ".jinja"}]
    sizes = {p: p.stat().st_size for p in files}
    return json_sha256({p.name: file_sha256(p) if size < _HASHED_WHOLE else size for p, size in sizes.items()})
