"""Finds the files that a recipe names."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError

PROJECT = Path(__file__).resolve().parents[2]


def find_file(given: str, key: str) -> Path:
    """A file that a recipe names: under the working directory, else under the project.

    Raises:
        InputError: it is in neither place.
    """
    for path in (Path(given).expanduser(), PROJECT / given):
        if path.exists():
            return path
    raise InputError(f"{key}: no file `{given}` in {Path.cwd()} or {PROJECT}.")
