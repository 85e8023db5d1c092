"""Where prompts come from: the sandbox, a local file, or the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import InputError
from pipeline.inputs.prompt_files import Row, is_prompt_file, read_rows

# org/name, a folder in it, a configuration, a split in the syntax of `datasets`: org/name/folder:config[train[:100]]
_HUB_ID = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?P<folder>(?:/[\w.-]+)*)(?::(?P<config>[\w.-]+))?(?:\[(?P<split>[\w:%\[\]+-]+)\])?"
)


def read_dataset(source: str, split: str, project_root: Path | None) -> list[Row]:
    """Rows of a local file if there is one of that name, else of a Hub dataset.

    ``?column=value`` at the end of either keeps only the rows with this value, as text, in that column.

    Raises:
        InputError: there is neither, it cannot be read, or no row is kept.
    """
    if _file(source, project_root).exists():
        return _read(source, split, project_root)
    place, asked, condition = source.partition("?")
    rows = _read(place, split, project_root)
    return _kept(source, rows, condition) if asked else rows


def _file(source: str, project_root: Path | None) -> Path:
    path = Path(source).expanduser()
    # An absolute path stays as it is.
    return path if project_root is None or path.exists() else project_root / path


def _read(source: str, split: str, project_root: Path | None) -> list[Row]:
    path = _file(source, project_root)
    if path.is_dir():
        raise InputError(f"{source}: is a folder; name a file in it.")
    if path.exists():
        return read_rows(path)
    if is_prompt_file(source):
        places = [Path.cwd(), project_root] if project_root and not Path(source).expanduser().is_absolute() else []
        raise InputError(f"{source}: no such file" + (f" in {places[0]} or {places[1]}." if places else "."))
    # A bare word is never passed on: `datasets` would take "json" for a reader and read the working directory.
    found = _HUB_ID.fullmatch(source)
    if not found:
        raise InputError(
            f"{source}: no such file, and not a Hub dataset (`org/name`, `org/name/folder` or `org/name:config`, and "
            "`org/name[test]` for another split) or a sandbox pool (`sandbox:POOL`); check the path."
        )
    return _hub_rows(source, found, found["split"] or split)


def _kept(source: str, rows: list[Row], condition: str) -> list[Row]:
    column, _, value = condition.partition("=")
    if not column or not value:
        raise InputError(f"{source}: expected `?column=value` after the name, found `?{condition}`.")
    present = list(dict.fromkeys(name for row in rows for name in row.fields))
    if column not in present:
        raise InputError(f"{source}: no column `{column}`; there are {', '.join(present)}.")
    kept = [row for row in rows if str(row.fields.get(column)) == value]
    if not kept:
        values = sorted({str(row.fields.get(column)) for row in rows})
        raise InputError(f"{source}: no row has `{value}` in `{column}`; it holds {', '.join(values[:10])}.")
    return kept


def _hub_rows(source: str, found: re.Match[str], split: str) -> list[Row]:
    import datasets

    try:
        table = datasets.load_dataset(
            found["name"], found["config"], data_dir=found["folder"].strip("/") or None, split=split
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).split("\n", 1)[0].rstrip(".")
        raise InputError(
            f"{source}: neither a file here nor a Hub dataset that could be loaded (split `{split}`): "
            f"{first_line}. Check the path or name, the split and the network; offline, give a file instead."
        ) from error
    if not len(table):
        raise InputError(f"{source}: split `{split}` holds no rows.")
    return [Row(f"{source} ({split}): row {number}", fields) for number, fields in enumerate(table, 1)]


def of_sandbox(prompts: str | None) -> bool:
    """Whether a recipe's training prompts are the sandbox's, as they are where it names none."""
    return (prompts or "sandbox:").startswith("sandbox:")


def read_sandbox(source: str, limit: int | None, seed: int) -> list[Row]:
    """Prompts drawn in the sandbox, with the columns ``prompt``, ``slice``, ``kind`` and whatever else it provides.

    Their number is determined by the source, else by the limit, else by the sandbox.

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
