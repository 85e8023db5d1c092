"""Prompt sets: from the sandbox, a local file or the Hub, to dialogues that wait for an answer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.inputs.prompt_cells import read_cell
from pipeline.inputs.prompt_files import Row, is_prompt_file, read_rows

PROMPT_COLUMNS = ("prompt", "messages", "question", "instruction", "text", "init_prompt", "chosen")
"""Columns taken for the prompt where none is named."""

SANDBOX_PROMPTS = 512
"""Prompts drawn for ``sandbox:POOL`` where neither the source nor a limit says how many."""


@dataclass(frozen=True)
class Prompt:
    """A dialogue that ends with a user turn; ``id`` depends on the messages alone."""

    id: str
    messages: tuple[dict[str, str], ...]
    slice: str
    labels: dict[str, str]


@dataclass(frozen=True)
class LoadedPrompts:
    """Prompts in the order of their source, and what became of all of its rows.

    ``n_rows == len(prompts) + n_duplicates + n_beyond_limit + sum(dropped_by_reason.values())``.
    ``changed_by_reason`` counts rows in use or not whose cell was not taken word for word (see `read_cell`).
    ``sha256`` is of the prompts themselves (messages, slices, labels), not of the file.
    """

    prompts: tuple[Prompt, ...]
    n_rows: int
    n_duplicates: int
    n_beyond_limit: int
    dropped_by_reason: dict[str, int]
    changed_by_reason: dict[str, int]
    column: str
    sha256: str


def load_prompts(
    source: str,
    *,
    column: str | None = None,
    split: str = "train",
    slice_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    project_root: Path | None = None,
) -> LoadedPrompts:
    """Read a prompt set.

    Args:
        source: ``sandbox:POOL`` or ``sandbox:POOL:N``; a .json, .jsonl, .csv, .parquet or .txt file (.gz too); or
            a dataset on the Hub, ``org/name`` or ``org/name:config``. The sandbox names its own slices.
        column: the column with the prompts. Without it ``prompt`` is taken if there is no ``messages`` beside
            it, else the only one of `PROMPT_COLUMNS` that is there; several are an error, since one of them often
            holds less than another (the first turn of a dialogue, say).
        split: split of a Hub dataset.
        slice_column: the column that names each row's slice; without it every row is in the slice ``all``. Other
            columns with text become labels.
        limit: at most this many prompts: those whose hash of seed and id is lowest. A random subset that does
            not depend on the file's order; a smaller limit takes part of what a larger one takes.
        seed: of the subset, and of the sandbox's draw.
        project_root: where a relative path is looked up if it is not under the working directory.

    Rows with the same messages count as duplicates of the first one, whose slice and labels are kept.

    Raises:
        InputError: the source cannot be read or has no usable prompt; the message names file and line.
    """
    if limit is not None and limit < 1:
        raise InputError(f"{source}: a limit of {limit} leaves no prompt; give a positive number, or none.")
    if source.startswith("sandbox:"):
        rows = _sandbox_rows(source, limit, seed)
        column, slice_column = "prompt", "slice"
    else:
        rows = _rows(source, split, project_root)
        column = _choose_column(source, rows, column)
    if slice_column is not None:
        _require_column(source, rows, slice_column, "slice_column")

    prompts: dict[str, Prompt] = {}
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    n_duplicates = 0
    for row in rows:
        if column not in row.fields:
            raise InputError(
                f"{row.where}: no column `{column}`; this row has {', '.join(row.fields) or 'none'}."
            )
        dialogue = read_cell(row.fields[column], f"{row.where}: column `{column}`")
        changed.update(dialogue.changes)
        if dialogue.drop_reason is not None:
            dropped[dialogue.drop_reason] += 1
            continue
        key = prompt_id(dialogue.messages)
        if key in prompts:
            n_duplicates += 1
            continue
        labels = {
            k: v for k, v in row.fields.items() if isinstance(v, str) and k not in (column, slice_column)
        }
        prompts[key] = Prompt(key, dialogue.messages, _slice(row, slice_column), labels)
    if not prompts:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in dropped.items())
        raise InputError(
            f"{source}: none of {len(rows)} rows holds a prompt ({reasons}); is `{column}` its column?"
        )

    chosen = _subset(list(prompts.values()), limit, seed)
    return LoadedPrompts(
        prompts=tuple(chosen),
        n_rows=len(rows),
        n_duplicates=n_duplicates,
        n_beyond_limit=len(prompts) - len(chosen),
        dropped_by_reason=dict(sorted(dropped.items())),
        changed_by_reason=dict(sorted(changed.items())),
        column=column,
        sha256=_digest([[p.messages, p.slice, p.labels] for p in chosen]),
    )


def prompt_id(messages: Sequence[dict[str, str]]) -> str:
    """First 16 hex digits of the SHA-256 of the messages as canonical JSON: the same in every file and order."""
    return _digest(messages)[:16]


def _digest(value: Any) -> str:
    canonical = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _subset(prompts: list[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    if limit is None or limit >= len(prompts):
        return prompts
    ranked = sorted(prompts, key=lambda p: hashlib.sha256(f"{seed}:{p.id}".encode()).digest())
    kept = {p.id for p in ranked[:limit]}
    return [p for p in prompts if p.id in kept]


def _rows(source: str, split: str, project_root: Path | None) -> list[Row]:
    path = Path(source).expanduser()
    if project_root is not None and not path.exists():
        path = project_root / path  # an absolute path stays as it is
    if path.is_dir():
        raise InputError(f"{source}: is a folder; name a file in it.")
    if path.exists() or is_prompt_file(source):
        return read_rows(path)
    return _hub_rows(source, split)


def _hub_rows(source: str, split: str) -> list[Row]:
    import datasets

    name, _, config = source.partition(":")
    try:
        table = datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).split("\n", 1)[0]
        raise InputError(
            f"{source}: neither a file here nor a Hub dataset that could be loaded (split `{split}`): {first_line} "
            "Check the path or name, the split and the network; offline, give a downloaded file instead."
        ) from error
    if not len(table):
        raise InputError(f"{source}: split `{split}` holds no rows.")
    return [Row(f"{source} ({split}): row {number}", fields) for number, fields in enumerate(table, 1)]


def _sandbox_rows(source: str, limit: int | None, seed: int) -> list[Row]:
    from pipeline import sandbox

    _, pool, *rest = source.split(":")
    count = rest[0] if rest else str(limit or SANDBOX_PROMPTS)
    if len(rest) > 1 or not count.isdecimal() or int(count) < 1:
        raise InputError(f"{source}: expected `sandbox:POOL` or `sandbox:POOL:N` with N a positive number.")
    drawn = sandbox.prompts(pool, int(count), seed)
    return [Row(f"{source}: prompt {number}", dict(fields)) for number, fields in enumerate(drawn, 1)]


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.fields))


def _require_column(source: str, rows: list[Row], column: str, option: str) -> None:
    present = _columns(rows)
    if column not in present:
        raise InputError(
            f"{source}: no column `{column}` (given as {option}); there are {', '.join(present)}."
        )


def _choose_column(source: str, rows: list[Row], column: str | None) -> str:
    if column is not None:
        _require_column(source, rows, column, "column")
        return column
    present = _columns(rows)
    found = [name for name in PROMPT_COLUMNS if name in present]
    if len(found) == 1 or ("prompt" in found and "messages" not in found):
        return found[0]
    fault = f"several could be the prompt ({', '.join(found)})" if found else "none is known to be the prompt"
    raise InputError(f"{source}: of the columns {', '.join(present)} {fault}; name the one to ask with.")


def _slice(row: Row, slice_column: str | None) -> str:
    if slice_column is None:
        return "all"
    value = row.fields.get(slice_column)
    if isinstance(value, bool | int):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"{row.where}: column `{slice_column}` must name the row's slice, but holds {value!r}."
        )
    return value.strip()
