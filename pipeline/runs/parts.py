"""The chunks of an unfinished stage on disk: Arrow files, which cost a third of Parquet's time to write and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.runs.files import write_atomically
from pipeline.runs.tables import reading


def write_part(path: Path, rows: pa.Table, notes: Mapping[str, Any]) -> None:
    """Write the rows of one chunk, and what should be known of them (JSON), atomically."""
    noted = rows.replace_schema_metadata({"notes": json.dumps(notes)})

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, noted.schema) as writer:
            writer.write_table(noted)

    write_atomically(path, write)


def read_part(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of one chunk, and what is known of them.

    Raises:
        RunError: the file is missing or damaged.
    """
    with reading(path), pa.OSFile(str(path)) as file:
        rows = pa.ipc.open_file(file).read_all()
    return rows.replace_schema_metadata(None), _notes(rows.schema)


def read_notes(path: Path) -> dict[str, Any]:
    """What is known of the rows of one chunk; errors as for `read_part`."""
    with reading(path), pa.OSFile(str(path)) as file:
        return _notes(pa.ipc.open_file(file).schema)


def _notes(schema: pa.Schema) -> dict[str, Any]:
    return dict(json.loads(schema.metadata[b"notes"]))
