"""The columns of every table in a run directory, and reading and writing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunError
from pipeline.runs.files import write_atomically

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

_IDENTITY: list[tuple[str, pa.DataType]] = [
    ("prompt_id", pa.string()),
    ("sample", pa.int32()),
    ("round", pa.int32()),
    ("seed", pa.int64()),
    ("model", pa.string()),
    ("adapter_sha256", pa.string()),
    ("finish_reason", pa.string()),
    ("error", pa.string()),
]
_COST: list[tuple[str, pa.DataType]] = [("prompt_tokens", pa.int32()), ("new_tokens", pa.int32())]
_PROMPT: list[tuple[str, pa.DataType]] = [("prompt", _MESSAGES), ("slice", pa.string())]

RESPONSES = pa.schema([*_IDENTITY, *_PROMPT, ("response", pa.string()), ("drop_reason", pa.string()), *_COST])
"""generate: one row per sampled response. ``drop_reason`` says why a row has no usable response."""

REFINEMENTS = pa.schema(
    [
        *_IDENTITY,
        *_PROMPT,
        ("revision_index", pa.int32()),
        ("principle_id", pa.string()),
        ("response", pa.string()),
        ("critique", pa.string()),
        ("revision", pa.string()),
        ("drop_reason", pa.string()),
        ("final", pa.string()),
        *_COST,
    ]
)
"""refine: one row per revision. ``response`` is the text revised here, ``final`` the text that leaves the chain
with this row (null on all but the last revision of a response, and where the chain left nothing usable)."""

PAIRS = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
    ]
)
"""refine: conversational preference pairs in TRL's format, final revision against initial response."""

TRAIN = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("round", pa.int32()),
        ("source", pa.string()),
    ]
)
"""distill: conversational prompt-completion rows in TRL's format; ``source`` is revision, helpful or anchor."""

SAMPLES = pa.schema(
    [
        *_IDENTITY,
        ("probe_set", pa.string()),
        *_PROMPT,
        ("response", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("drop_reason", pa.string()),
        *_COST,
    ]
)
"""measure: one row per probe sample, with the tokens as they were sampled."""

SCORES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("probe_set", pa.string()),
        ("slice", pa.string()),
        ("scorer", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)
"""measure: one row per sample and scorer; a null score comes with the reason for it."""

CONTENT = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("revision_index", pa.int32()),
        ("principle_id", pa.string()),
        ("n_facts", pa.int32()),
        ("nothing", pa.float64()),
        ("response", pa.float64()),
        ("revision", pa.float64()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)
"""audit: one row per innocent answer: the share of its content that its rewrite keeps, and the nats per token this is
computed from (``scorers/content.py``); a null score comes with the reason for it."""


def to_table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of exactly ``schema``."""
    return pa.Table.from_pylist(list(rows), schema=schema)


ROWS_TOGETHER = 8192
"""Rows of a row group, at least, but for the last one: small groups take longer to write, read and compress."""


def write_table(path: Path, pieces: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write pieces one after another into one Parquet file, atomically; return the number of rows.

    Pieces are joined into row groups of ``ROWS_TOGETHER`` rows or a few more, and never cut.
    """
    rows = 0

    def write(temporary: Path) -> None:
        nonlocal rows
        rows = 0
        # Hardly any two texts are equal, so a dictionary of them costs time and saves few bytes.
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer:
            for group in _joined(pieces):
                writer.write_table(group, row_group_size=group.num_rows)
                rows += group.num_rows

    write_atomically(path, write)
    return rows


def _joined(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    together: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        together.append(piece)
        rows += piece.num_rows
        if rows >= ROWS_TOGETHER:
            yield pa.concat_tables(together)
            together, rows = [], 0
    if rows:
        yield pa.concat_tables(together)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table of the run.

    Raises:
        RunError: the file is missing or damaged.
    """
    with reading(path):
        return pq.read_table(path, columns=list(columns) if columns else None)


class Pieces:
    """A table of the run, piece by piece (a row group each), with one in memory at a time.

    Attributes:
        sizes: number of rows of each piece.

    Raises:
        RunError: the file is missing or damaged, here or when the damaged piece is read.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._path = path
        self._columns = list(columns) if columns else None
        with reading(path):
            self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        self.sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def read(self, number: int) -> pa.Table:
        """One piece."""
        with reading(self._path):
            return self._file.read_row_group(number, columns=self._columns)

    def __iter__(self) -> Iterator[pa.Table]:
        """The pieces, one after another."""
        return map(self.read, range(len(self.sizes)))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file of the run into a RunError that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing; run the stage that writes it first.") from error
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            f"{path}: damaged ({error}); delete this stage's folder and run the same command again."
        ) from error
