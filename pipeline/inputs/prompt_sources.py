"""Where prompts come from: the sandbox, a local file, or the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import InputError
from pipeline.inputs.prompt_files import Row, is_prompt_file, read_rows

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def read_dataset(source: str, split: str, project_root: Path | None) -> list[Row]:
    """Rows of a local file if there is one of that name, else of a Hub dataset.

    Raises:
        InputError: there is neither, or it cannot be read.
    """
    path = Path(source).expanduser()
    if project_root is not None and not path.exists():
        path = project_root / path  # an absolute path stays as it is
    if path.is_dir():
        raise InputError(f"{source}: is a folder; name a file in it.")
    if path.exists() or is_prompt_file(source):
        return read_rows(path)
    # A bare word is never passed on: `datasets` takes "json" for a reader and reads the working directory.
    if not _HUB_ID.fullmatch(source):
        raise InputError(
            f"{source}: no such file, and not a Hub dataset (`org/name` or `org/name:config`) or a sandbox "
            "pool (`sandbox:POOL`); check the path."
        )
    return _hub_rows(source, split)


def _hub_rows(source: str, split: str) -> list[Row]:
    import datasets

    name, _, config = source.partition(":")
    try:
        table = datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).split("\n", 1)[0].rstrip(".")
        raise InputError(
            f"{source}: neither a file here nor a Hub dataset that could be loaded (split `{split}`): "
            f"{first_line}. Check the path or name, the split and the network; offline, give a file instead."
        ) from error
    if not len(table):
        raise InputError(f"{source}: split `{split}` holds no rows.")
    return [Row(f"{source} ({split}): row {number}", fields) for number, fields in enumerate(table, 1)]


def read_sandbox(source: str, limit: int | None, seed: int) -> list[Row]:
    """Prompts drawn in the sandbox, with the columns ``prompt``, ``slice``, ``kind`` and what else it tells.

    How many is said by the source, else by the limit, else by the sandbox.

    Raises:
        InputError: the source is not ``sandbox:POOL`` or ``sandbox:POOL:N``, or there is no such pool.
    """
    from pipeline import sandbox

    _, pool, *rest = source.split(":")
    count = limit
    if rest:
        if len(rest) > 1 or not rest[0].isdecimal() or int(rest[0]) < 1:
            raise InputError(f"{source}: expected `sandbox:POOL` or `sandbox:POOL:N` with N a positive number.")
        count = int(rest[0])
    drawn = sandbox.prompts(pool, count, seed)
    return [Row(f"{source}: prompt {number}", dict(fields)) for number, fields in enumerate(drawn, 1)]
