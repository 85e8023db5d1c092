"""Text files that people edit."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError


def read_text(path: Path, kind: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; line ends as they are.

    Args:
        path: path of the file.
        kind: what it is, for error messages: ``constitution``, ``battery``.

    Raises:
        InputError: it cannot be read, or is not UTF-8 (with line and column).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a {kind} file.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise InputError(
            f"{path}:{line}:{column}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8."
        ) from error
