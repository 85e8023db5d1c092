"""Prompt sets: dialogues that wait for an answer, from the sandbox, a local file or the Hub."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.inputs.overlap import Overlap, ProbeIndex
from pipeline.inputs.prompt_cells import read_cell, unpack_messages
from pipeline.inputs.prompt_files import Row
from pipeline.inputs.prompt_sources import read_dataset, read_sandbox

PROMPT_COLUMNS = ("prompt", "messages", "question", "instruction", "text", "init_prompt", "chosen", "transcript")
"""Columns that may hold the prompt where none is named."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue that ends with a user turn; ``id`` depends only on the messages."""

    id: str
    messages: tuple[dict[str, str], ...]
    slice: str
    labels: dict[str, str]


@dataclass(frozen=True)
class LoadedPrompts:
    """Prompts in the order of their source, and what became of all its rows.

    ``n_rows == len(prompts) + n_duplicates + n_beyond_limit + sum(dropped_by_reason.values())``.
    ``changed_by_reason`` counts rows, used or not, whose cell was not taken word for word (see `read_cell`).
    ``overlaps`` are the rows left out as near-duplicates of probe prompts, each with the probe prompt.
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
    overlaps: tuple[Overlap, ...] = ()


def load_prompts(
    source: str,
    *,
    column: str | None = None,
    split: str = "train",
    slice_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    exclude: Collection[str] = (),
    near: ProbeIndex | None = None,
    project_root: Path | None = None,
) -> LoadedPrompts:
    """Read a prompt set.

    Args:
        source: ``sandbox:POOL`` or ``sandbox:POOL:N``; a .json, .jsonl, .csv, .parquet or .txt file (.gz
            too); or a dataset on the Hub, ``org/name``, ``org/name/folder`` or ``org/name:config``, with another
            split in brackets if needed (``org/name[test]``). After a file or dataset, ``?column=value``
            keeps the rows with that value. The sandbox names its own columns and slices.
        column: column with the prompts. Without it ``prompt`` is taken if there is no ``messages`` as well,
            else the only one of `PROMPT_COLUMNS` that is present; several are an error, since one of them
            often holds less than another (only the first turn of a dialogue, say).
        split: split of a Hub dataset.
        slice_column: column that names each row's slice; without it every row is in the slice ``all``.
            Other columns with text become labels.
        limit: maximum number of prompts: those whose hash of seed and id is lowest. They are a random subset that
            does not depend on the file's order; a smaller limit takes a part of what a larger one takes.
        seed: random seed of the subset, and of the sandbox's draw.
        exclude: ids of prompts to leave out (those used for measurements are never trained on); counted as
            dropped with the reason ``held_out``.
        near: index of probe prompts, whose near-duplicates are left out too; counted as ``near_probe_set``.
        project_root: folder in which a relative path is looked up if it is not under the working directory.

    Rows with the same messages count as duplicates of the first one, whose slice and labels are kept.

    Raises:
        InputError: the source cannot be read or has no usable prompt; the message names file and line.
    """
    if limit is not None and limit < 1:
        raise InputError(f"{source}: a limit of {limit} leaves no prompt; give a positive number, or none.")
    if source.startswith("sandbox:"):
        rows = read_sandbox(source, limit, seed)
        column, slice_column = "prompt", "slice"
    else:
        rows = read_dataset(source, split, project_root)
        column = _choose_column(source, rows, column)
    if slice_column is not None:
        _require_column(source, rows, slice_column, "slice column")

    prompts: dict[str, Prompt] = {}
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    overlaps: list[Overlap] = []
    n_rows, n_duplicates = len(rows), 0
    rows.reverse()
    while rows:  # each is freed once its prompt is made: there may be millions
        row = rows.pop()
        if column not in row.fields:
            raise InputError(f"{row.where}: no column `{column}`; this row has {', '.join(row.fields) or 'none'}.")
        cell, where = row.fields[column], f"{row.where}: column `{column}`"
        dialogue = read_cell(unpack_messages(cell, where) if row.only_text else cell, where)
        changed.update(dialogue.changes)
        if dialogue.drop_reason is not None:
            dropped[dialogue.drop_reason] += 1
            continue
        key = prompt_id(dialogue.messages)
        if key in exclude:
            dropped["held_out"] += 1
            continue
        if key in prompts:
            n_duplicates += 1
            continue
        labels = {
            name: value
            for name, value in row.fields.items()
            if isinstance(value, str) and name not in (column, slice_column)
        }
        prompt = Prompt(key, dialogue.messages, _slice(row, slice_column), labels)
        if near is not None and (overlap := near.nearest(prompt)) is not None:
            dropped["near_probe_set"] += 1
            overlaps.append(overlap)
            continue
        prompts[key] = prompt
    if not prompts:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in dropped.items())
        measured = dropped["held_out"] + dropped["near_probe_set"]
        advice = (
            "give prompts that nothing is measured on"
            if measured
            else f"is `{column}` its column (`prompt_column`, `helpful_column` or `probe_column`)?"
        )
        raise InputError(f"{source}: none of {n_rows} rows holds a prompt to use ({reasons}); {advice}")

    chosen = _subset(list(prompts.values()), limit, seed)
    return LoadedPrompts(
        prompts=tuple(chosen),
        n_rows=n_rows,
        n_duplicates=n_duplicates,
        n_beyond_limit=len(prompts) - len(chosen),
        dropped_by_reason=dict(sorted(dropped.items())),
        changed_by_reason=dict(sorted(changed.items())),
        column=column,
        overlaps=tuple(overlaps),
        sha256=_sha256_of(chosen),
    )


def prompt_id(messages: Sequence[dict[str, str]]) -> str:
    """First 16 hex digits of the SHA-256 of the messages as canonical JSON, whichever file they come from."""
    return hashlib.sha256(_canonical(messages)).hexdigest()[:16]


def _sha256_of(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the list of prompts as canonical JSON."""
    digest = hashlib.sha256()
    before = b"["
    for prompt in prompts:
        digest.update(before + _canonical([prompt.messages, prompt.slice, prompt.labels]))
        before = b","
    digest.update(b"]")
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return _CANONICAL.encode(value).encode("utf-8")


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _subset(prompts: list[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    if limit is None or limit >= len(prompts):
        return prompts
    ranked = sorted(prompts, key=lambda p: hashlib.sha256(f"{seed}:{p.id}".encode()).digest())
    kept = {p.id for p in ranked[:limit]}
    return [p for p in prompts if p.id in kept]


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.fields))


def _require_column(source: str, rows: list[Row], column: str, option: str) -> None:
    present = _columns(rows)
    if column not in present:
        raise InputError(f"{source}: no column `{column}` (given as the {option}); there are {', '.join(present)}.")


def _choose_column(source: str, rows: list[Row], column: str | None) -> str:
    if column is not None:
        _require_column(source, rows, column, "prompt column")
        return column
    present = _columns(rows)
    found = [name for name in PROMPT_COLUMNS if name in present]
    if len(found) == 1 or ("prompt" in found and "messages" not in found):
        return found[0]
    fault = f"several could be the prompt ({', '.join(found)})" if found else "none is known to be the prompt"
    raise InputError(
        f"{source}: of the columns {', '.join(present)} {fault}; name the right one (`prompt_column`, "
        "`helpful_column` or `probe_column`)."
    )


def _slice(row: Row, slice_column: str | None) -> str:
    if slice_column is None:
        return "all"
    value = row.fields.get(slice_column)
    if isinstance(value, bool | int):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{row.where}: column `{slice_column}` must name the row's slice, but holds {value!r}.")
    return sys.intern(value.strip())
