"""Which model a recipe means, at which revision, and whether its folder holds a usable one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pipeline.errors import InputError
from pipeline.inputs.addresses import is_address
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


def is_other_model(name: str | None) -> bool:
    """Whether this names a separate model loaded in this process (not `policy`, `base` or an address)."""
    return name is not None and name not in ("policy", "base") and not is_address(name)


def follows_main(model: str, revision: str | None) -> bool:
    """Whether a model is whatever the main branch of its repository on the Hub currently holds."""
    return revision is None and not Path(resolve_model(model)).is_dir()


@cache
def pinned(model: str, revision: str | None) -> str | None:
    """The commit that a Hub id has at a revision, the same throughout a launch; where none is known, the revision.

    A branch may move on while a run is under way, and a model is loaded anew after every training.
    """
    if Path(model).is_dir():
        return revision
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        config = cached_file(model, "config.json", revision=revision)
    except (OSError, ValueError):  # no network, no such model, no Hub id: said when it is loaded
        return revision
    return extract_commit_hash(config, None) or revision


def split_revision(name: str, where: str) -> tuple[str, str | None]:
    """Read ``MODEL`` or ``MODEL@REVISION``: a Hub id, and its commit, tag or branch; None for the main branch.

    An ``@`` in the path of an existing folder does not start a revision.

    Args:
        name: model as the recipe names it.
        where: recipe key it came from, for error messages.

    Raises:
        InputError: a part is empty, or a folder is given a revision.
    """
    model, at, revision = name.rpartition("@")
    if not at or Path(name).expanduser().is_dir():
        return name, None
    if not model or not revision:
        raise InputError(f"{where}: `{name}` is incomplete; write `MODEL@REVISION`.")
    if Path(model).expanduser().is_dir():
        raise InputError(f"{where}: `{name}`: a folder has no revisions; write `{model}`.")
    return model, revision


def require_model_folder(model: str) -> None:
    """Check a local folder before the library does, to say plainly what is missing. Hub ids pass.

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
    """What identifies a model: a Hub id with its commit, or the bytes of a local folder.

    Files over 2 GB count by name and size: hashing 140 GB of weights at every start would take minutes.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{pinned(model, revision) or 'main'}"
    files = [p for p in sorted(folder.iterdir()) if p.suffix in {".json", ".safetensors", ".jinja"}]
    sizes = {p: p.stat().st_size for p in files}
    return json_sha256({p.name: file_sha256(p) if size < _HASHED_WHOLE else size for p, size in sizes.items()})


def identify(name: str, where: str) -> str:
    """What identifies a critic, reviser or judge, so that a model that changes under its name counts as another.

    Args:
        name: name in the recipe: ``policy``, ``base``, an address, or a model.
        where: recipe key it came from, for error messages.
    """
    return model_digest(*split_revision(resolve_model(name), where)) if is_other_model(name) else name
