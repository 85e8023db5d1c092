"""Writing so that a kill at any instant leaves the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow: the disk is full, or this user's share of it, or the largest file."""

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""The names of the files that ``write_atomically`` fills."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary sibling of ``path``, flush it to the disk, then rename it into place.

    Raises:
        RunError: the disk is full or the folder cannot be written; ``path`` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in FULL:
            raise _full(path) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise RunError(
                f"{path}: cannot be written ({error.strerror}); check the folder's owner and mode."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Let libraries write in ``folder``; what they raise because the disk is full becomes a clear error.

    Raises:
        RunError: the disk is full.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        chain: BaseException | None = error
        while chain is not None:
            if getattr(chain, "errno", None) in FULL or "No space left" in str(chain):
                raise _full(folder) from error
            chain = chain.__cause__ or chain.__context__
        # torch.save says no more than that a position in the file is not the expected one.
        if shutil.disk_usage(folder).free < 2**20:
            raise _full(folder) from error
        raise


def _full(path: Path) -> RunError:
    return RunError(
        f"{path}: no space left on the disk. Everything finished so far is kept: "
        "free some space and run the same command again."
    )


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once the folder that holds the name is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` (UTF-8), atomically."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` with ``value`` as indented JSON, atomically; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace ``path`` with one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_text(path: Path) -> str:
    """Read a text file of the run (UTF-8).

    Raises:
        RunError: the file is missing or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing; the run directory is incomplete.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); check its owner and mode, or "
            "restore it from a copy of the run."
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file of the run.

    Raises:
        RunError: the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise RunError(f"{path}:{error.lineno}: damaged ({error.msg}); restore it from a copy of the run.") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line; a missing file has no rows.

    Raises:
        RunError: a line is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    # Not splitlines(), which also splits at U+2028 and the like: JSON does not escape them.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        try:
            rows += [json.loads(line)] if line else []
        except json.JSONDecodeError as error:
            raise RunError(f"{path}:{number}: damaged ({error.msg}); restore it from a copy of the run.") from error
    return rows


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
