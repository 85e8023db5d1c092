r"""A constitution: the principles that critiques are made from, as plain text that a person edits.

The format::

    # A line whose first character is `#` is a comment. A `#` further on is text.

    The answer should not be rude.

    name: no-flattery
    weight: 2
    applies_to: opinions, feedback
    critique: Point out every place where the answer praises the person
      instead of judging what they wrote.
    revise: Write the answer again without the praise.

- A paragraph is a principle; empty lines part them. Lines are joined by one space, and other runs of white
  space inside a text become one space too. Indentation means nothing.
- A principle is plain text, one sentence or more, which the templates wrap; or a pair of ``critique:`` and
  ``revise:`` texts, which are asked as they are.
- Above it there may be ``name:`` (letters, digits, ``-``, ``_``, ``.``), ``weight:`` (a positive number, 1 by
  default: how often it is drawn relative to the others) and ``applies_to:`` (names of slices of the prompts,
  parted by commas; all if empty), one line each.
- A key stands at the start of a line, and is one word and a colon. Any other start of a line is text, so
  prose may hold colons. A word that is nearly a key (``wieght:``) is an error, and so is any one-word key
  straight under a header line: no slip of the pen becomes part of a principle unseen.
- A backslash at the start of a line makes the line text: ``\# not a comment``, ``\name: not a key``,
  ``\\ one backslash``.
- Braces are text: principles are data for the templates, never templates.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.inputs.constitution_parser import Principle, parse


@dataclass(frozen=True)
class Constitution:
    r"""Principles in the order of the file, with its text (line ends as ``\n``) and the text's SHA-256."""

    name: str
    principles: tuple[Principle, ...]
    source_text: str
    sha256: str

    def applicable(self, slice_name: str) -> tuple[Principle, ...]:
        """The principles for prompts of one slice."""
        return tuple(p for p in self.principles if not p.applies_to or slice_name in p.applies_to)


def load_constitution(path: Path | str) -> Constitution:
    """Read a constitution file.

    Raises:
        InputError: the file cannot be read or has faults; the message names each with file, line and column.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a constitution file.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise InputError(
            f"{path}:{line}:{column}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8."
        ) from error
    return parse_constitution(text, str(path))


def parse_constitution(text: str, name: str) -> Constitution:
    """Read a constitution from its text.

    Args:
        text: in the format at the head of this module.
        name: what errors call it (the file's path); the constitution's name is its last part without suffix.

    Raises:
        InputError: one line a fault, each with line and column.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    principles, faults = parse(text)
    if faults:
        raise InputError("\n".join(f"{name}:{f.line}:{f.column}: {f.message}" for f in faults))
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return Constitution(Path(name).stem, tuple(principles), text, digest)


def draw_principles(
    constitution: Constitution, n: int, rng: np.random.Generator, replace: bool, slice_name: str
) -> list[Principle]:
    """Draw ``n`` of the principles for a slice, with chances in proportion to their weights.

    Each draw takes one ``rng.random()``. Without replacement a principle comes again only after all others of
    the slice have come: when none is left, a fresh urn is started.

    Raises:
        InputError: no principle applies to the slice.
    """
    principles = constitution.applicable(slice_name)
    if not principles:
        raise InputError(
            f"{constitution.name}: no principle applies to the slice `{slice_name}`; add one without "
            "`applies_to:`, or name the slice in one."
        )
    drawn: list[Principle] = []
    urn: list[Principle] = []
    for _ in range(n):
        if replace or not urn:
            urn = list(principles)
        bounds = np.cumsum([p.weight for p in urn])
        index = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
        drawn.append(urn.pop(min(index, len(urn) - 1)))
    return drawn


if __name__ == "__main__":
    from pipeline.inputs.constitution_commands import main

    sys.exit(main())
