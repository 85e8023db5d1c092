"""Text files of ``key: value`` lines in paragraphs: the form of batteries and rubrics."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pipeline.errors import InputError
from pipeline.inputs.text_files import read_text

_LINE = re.compile(r"([A-Za-z][A-Za-z_-]*)[ \t]*:(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Fault(NamedTuple):
    """What is wrong, and in which line."""

    line: int
    message: str


class Line(NamedTuple):
    """A line of a file: its number from 1, its key, and its value with single spaces, which is not empty."""

    number: int
    key: str
    value: str


class Named(Protocol):
    """The content of such a file: ``name`` becomes part of score names, ``path`` is for error messages."""

    @property
    def name(self) -> str:
        """One word."""

    @property
    def path(self) -> str:
        """Path of the file."""


Held = TypeVar("Held", bound=Named)


def load_named(paths: Sequence[Path | str], kind: str, parse: Callable[[str, str], Held]) -> tuple[Held, ...]:
    """Read files whose names must differ.

    Args:
        paths: paths of the files.
        kind: what they are, for error messages: ``battery``, ``rubric``.
        parse: function from text and path to content.

    Raises:
        InputError: a file cannot be read or has faults, each named with its line; or two have the same name.
    """
    found: list[Held] = []
    for path in paths:
        one = parse(read_text(Path(path), kind), str(path))
        twin = next((other for other in found if other.name == one.name), None)
        if twin is not None:
            raise InputError(
                f"{one.path}: the name `{one.name}` is that of {twin.path} too, but it names the score; "
                "give one of them another `name:`."
            )
        found.append(one)
    return tuple(found)


def with_plain_line_ends(text: str) -> str:
    r"""The text with ``\n`` line ends, whatever they were."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_paragraphs(text: str, keys: Sequence[str], example: str, faults: list[Fault]) -> list[list[Line]]:
    """The lines of each paragraph that could be read; faults of the others are added to ``faults``.

    Empty lines separate paragraphs. A line whose first character is ``#`` is a comment; a paragraph of comments alone
    does not count.

    Args:
        text: text of the file.
        keys: keys that a line may have.
        example: example of a line, for the fault of a line without a key.
        faults: faults found so far.
    """
    found: list[list[Line]] = []
    parted = True
    for number, raw in enumerate(text.split("\n"), 1):
        words = raw.split()
        if not words:
            parted = True
        elif not words[0].startswith("#"):
            if parted:
                found.append([])
                parted = False
            line = _read_line(number, " ".join(words), keys, example)
            if isinstance(line, Fault):
                faults.append(line)
            else:
                found[-1].append(line)
    return found


def _read_line(number: int, text: str, keys: Sequence[str], example: str) -> Line | Fault:
    match = _LINE.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        return Fault(number, f"`{shown}` has no key; a line is {example}, and must not be wrapped.")
    key, value = match[1], match[2].strip()
    if key not in keys:
        near = difflib.get_close_matches(key.lower().replace("-", "_"), keys, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(keys)}."
        return Fault(number, f"unknown key `{key}`; {hint}")
    if not value:
        return Fault(number, f"`{key}:` is empty; fill it in or delete the line.")
    return Line(number, key, value)


def each_once(
    lines: Sequence[Line], keys: Sequence[str], what: str, faults: list[Fault]
) -> Iterator[tuple[str, Line]]:
    """The lines whose key is one of ``keys``, each key once; any other line is a fault that says what belongs here."""
    seen: dict[str, int] = {}
    for line in lines:
        if line.key not in keys:
            faults.append(Fault(line.number, f"`{line.key}:` does not belong here: {what}, set off by an empty line."))
        elif line.key in seen:
            faults.append(
                Fault(line.number, f"`{line.key}:` is given a second time (first at line {seen[line.key]}).")
            )
        else:
            seen[line.key] = line.number
            yield line.key, line


def read_name(line: Line, faults: list[Fault]) -> str:
    """The value of a ``name:`` line: one word that can be part of a score's name."""
    if not _NAME.fullmatch(line.value):
        faults.append(
            Fault(line.number, f"name `{line.value}` must be one word of letters, digits, `-`, `_` and `.`.")
        )
    return line.value


def read_version(line: Line, faults: list[Fault]) -> int:
    """The value of a ``version:`` line; 0 if it is not valid."""
    if _VERSION.fullmatch(line.value):
        return int(line.value)
    faults.append(Fault(line.number, f"version `{line.value}` is not a whole number from 1."))
    return 0
