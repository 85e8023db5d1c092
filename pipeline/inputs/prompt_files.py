"""Rows of a local file, each with the place it came from, so that errors can name it.

The files are read here and not by `datasets`, which guesses types and hides the line of a fault.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError


class Row(NamedTuple):
    """One row: where it is (``file:line`` if the format has lines), and its columns.

    ``only_text`` says that the format knows nothing but text, so a list stands in a cell as JSON.
    """

    where: str
    fields: dict[str, Any]
    only_text: bool = False


def is_prompt_file(name: str) -> bool:
    """Whether the name has the suffix of a format that is read here."""
    return _suffix(name) in _READERS


def read_rows(path: Path) -> list[Row]:
    """All rows of a .json, .jsonl, .csv, .parquet or .txt file, or of one of these gzipped.

    JSON is a list of objects, or one object per line; a bare string counts as an object with the one key
    ``prompt``. CSV has a header and commas. Text files have one prompt per line, and empty lines are skipped.

    Raises:
        InputError: the file is missing, of an unknown kind, malformed (the message names the line), or has no rows.
    """
    reader = _READERS.get(_suffix(path.name))
    if reader is None:
        known = ", ".join(_READERS)
        raise InputError(f"{path}: unknown kind of file; give one of {known} (or one of them with .gz).")
    try:
        raw = path.read_bytes()
        if path.suffix.lower() == ".gz":
            raw = gzip.decompress(raw)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a complete gzip file ({error}); download or compress it again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    rows = list(reader(str(path), raw))
    if not rows:
        raise InputError(f"{path}: holds no rows.")
    return rows


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _decode(path: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8."
        ) from error


def _read_json(path: str, raw: bytes) -> Iterator[Row]:
    text = _decode(path, raw)
    if not text.lstrip().startswith("["):
        yield from _read_json_lines(path, raw)
        return
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno}).") from error
    for number, entry in enumerate(entries, 1):
        yield _json_row(f"{path}: entry {number}", entry)


def _read_json_lines(path: str, raw: bytes) -> Iterator[Row]:
    for number, line in enumerate(_lines(_decode(path, raw)), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{number}: not valid JSON: {error.msg} (column {error.colno}). "
                "Each line must be one whole JSON object; correct the line or delete it."
            ) from error
        yield _json_row(f"{path}:{number}", entry)


def _lines(text: str) -> Iterator[str]:
    """The lines, one at a time. Not splitlines(), which also splits at characters that a JSON string may hold."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _json_row(where: str, entry: Any) -> Row:
    if isinstance(entry, str):
        return Row(where, {"prompt": entry})
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected an object (columns and values), found {type(entry).__name__}.")
    return Row(where, entry)


def _read_csv(path: str, raw: bytes) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_decode(path, raw), newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for record in reader:
            if header is None:
                header = record
                if len(set(header)) < len(header) or "" in header:
                    raise InputError(f"{path}:1: the header has an empty or repeated name: {', '.join(header)}.")
            elif len(record) not in (0, len(header)):
                raise InputError(
                    f"{path}:{line}: {len(record)} fields under a header of {len(header)}; "
                    "put quotes around a field that contains a comma."
                )
            elif record:
                yield Row(f"{path}:{line}", dict(zip(header, record, strict=True)), only_text=True)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{line}: not valid CSV: {error}.") from error


def _read_parquet(path: str, raw: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(raw))
    except pa.ArrowException as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from error
    for number, fields in enumerate(table.to_pylist(), 1):
        yield Row(f"{path}: row {number}", fields)


def _read_text(path: str, raw: bytes) -> Iterator[Row]:
    for number, line in enumerate(_lines(_decode(path, raw)), 1):
        if line.strip():
            yield Row(f"{path}:{number}", {"prompt": line})


_READERS: dict[str, Callable[[str, bytes], Iterator[Row]]] = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
