"""Parses text into principles; the format is described at the head of `pipeline.inputs.constitution`."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

HEADER_KEYS = ("name", "weight", "applies_to")
BODY_KEYS = ("critique", "revise")
KEYS = (*HEADER_KEYS, *BODY_KEYS)

KEY_LINE = re.compile(r"([A-Za-z][A-Za-z_-]*)[ \t]*:")
"""What a line that could be read as a key looks like."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NEARLY = 0.7  # takes in `wieght`, and the `critic` and `revision` of the JSON formats


@dataclass(frozen=True)
class Principle:
    """One rule: either ``text``, or ``critique`` and ``revise``.

    ``id`` is its name, or made from its words; it does not depend on the other principles. ``applies_to``
    holds names of slices; if empty, it applies to all. ``line`` is where it begins in the file, from 1.
    """

    id: str
    text: str | None
    critique: str | None
    revise: str | None
    weight: float
    applies_to: tuple[str, ...]
    line: int


class Fault(NamedTuple):
    """What is wrong, and where; lines and columns count from 1."""

    line: int
    column: int
    message: str


class _Line(NamedTuple):
    number: int
    column: int
    text: str


@dataclass
class _Draft:
    """A paragraph while it is read: words under each key; prose without a key is under ``text``."""

    line: int
    words: dict[str, list[str]] = field(default_factory=dict)
    at: dict[str, tuple[int, int]] = field(default_factory=dict)
    key: str | None = None

    def open(self, key: str, line: _Line, value: str) -> None:
        self.key = key
        self.at[key] = (line.number, line.column)
        self.words[key] = value.split()

    def value(self, key: str) -> str | None:
        return " ".join(self.words[key]) if key in self.words else None


def parse(text: str) -> tuple[list[Principle], list[Fault]]:
    r"""The principles of a text with ``\n`` line ends, and all faults found, in the order of the lines.

    If there is any fault, the principles must not be used.
    """
    principles: list[Principle] = []
    faults: list[Fault] = []
    for paragraph in _paragraphs(text):
        draft = _Draft(paragraph[0].number)
        before = len(faults)
        for line in paragraph:
            _read_line(draft, line, faults)
        principle = _finish(draft, len(faults) == before, faults)
        twin = next((p for p in principles if p.id == principle.id), None)
        if twin is not None:
            what = f"the name `{twin.id}` is taken" if "name" in draft.at else "the same principle appears"
            at = draft.at.get("name", (draft.line, 1))
            faults.append(Fault(*at, f"{what} already, at line {twin.line}; change or remove one."))
        elif "name" in draft.at or len(faults) == before:
            principles.append(principle)
    if not principles and not faults:
        faults.append(Fault(1, 1, "no principle in here; write one sentence for each, with empty lines between."))
    return principles, sorted(faults)


def _paragraphs(text: str) -> Iterator[list[_Line]]:
    paragraph: list[_Line] = []
    for number, raw in enumerate([*text.split("\n"), ""], 1):
        stripped = raw.strip()
        if not stripped and paragraph:
            yield paragraph
            paragraph = []
        elif stripped and not stripped.startswith("#"):
            paragraph.append(_Line(number, len(raw) - len(raw.lstrip()) + 1, stripped))


def _read_line(draft: _Draft, line: _Line, faults: list[Fault]) -> None:
    text = line.text
    under_header = draft.key is None or draft.key in HEADER_KEYS
    if text.startswith("\\") and (text[1:2] in ("#", "\\") or KEY_LINE.match(text[1:])):
        text = text[1:]
    elif match := KEY_LINE.match(text):
        key, value = match[1], text[match.end() :]
        if key in KEYS:
            if fault := _misplaced(draft, key):
                faults.append(Fault(line.number, line.column, fault))
            else:
                draft.open(key, line, value)
            return
        near = difflib.get_close_matches(key.lower().replace("-", "_"), KEYS, 1, _NEARLY)
        if near or (under_header and draft.key is not None and key.islower()):
            hint = f"did you mean `{near[0]}`?" if near else f"the keys are {', '.join(KEYS)}."
            escape = f"If it is meant as text, write `\\{key}:`."
            faults.append(Fault(line.number, line.column, f"unknown key `{key}`; {hint} {escape}"))
            return
    if under_header:
        draft.open("text", line, text)
    else:
        draft.words[draft.key or "text"] += text.split()


def _misplaced(draft: _Draft, key: str) -> str | None:
    """Why a known key does not belong where it is, or None."""
    parted = "Put an empty line between two principles"
    escape = f"if it is meant as text, write `\\{key}:`."
    if key in draft.at:
        return f"`{key}:` is given a second time (first at line {draft.at[key][0]}). {parted}; {escape}"
    if key in HEADER_KEYS and draft.key is not None and draft.key not in HEADER_KEYS:
        return f"`{key}:` must be above the principle's text. {parted}; {escape}"
    if key in BODY_KEYS and "text" in draft.at:
        where = draft.at["text"][0]
        return f"`{key}:` under a principle that is plain text already (line {where}). {parted}; {escape}"
    return None


def _finish(draft: _Draft, whole: bool, faults: list[Fault]) -> Principle:
    """The principle of a paragraph; if ``whole``, all its lines were understood, so what is missing really is."""

    def fault(key: str, message: str) -> None:
        faults.append(Fault(*draft.at.get(key, (draft.line, 1)), message))

    text, critique, revise = (draft.value(key) for key in ("text", *BODY_KEYS))
    if whole and text is None and critique is None and revise is None:
        fault("", "a principle without text; write a sentence, or `critique:` and `revise:`, under its header.")
    for key, value, other in (("critique", critique, "revise"), ("revise", revise, "critique")):
        if value == "":
            fault(key, f"`{key}:` is empty; write what the model is asked to do.")
        if whole and value is not None and other not in draft.at:
            fault(key, f"`{key}:` without `{other}:`; a principle needs both.")

    weight = 1.0
    if (raw := draft.value("weight")) is not None:
        try:
            weight = float(raw)
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            fault(
                "weight",
                f"weight `{raw}` is not a positive number; to leave a principle out, comment it out.",
            )
    name = draft.value("name")
    if name is not None and not _NAME.fullmatch(name):
        fault("name", f"name `{name}` must be one word of letters, digits, `-`, `_` and `.`.")
    slices = [part.strip() for part in (draft.value("applies_to") or "").split(",")]
    if len(slices) > 1 and "" in slices:
        fault("applies_to", "`applies_to:` has an empty name between commas; it takes one line.")
    return Principle(
        id=name or _made_id(text, critique, revise),
        text=text,
        critique=critique,
        revise=revise,
        weight=weight,
        applies_to=tuple(dict.fromkeys(filter(None, slices))),
        line=draft.line,
    )


def _made_id(*parts: str | None) -> str:
    """The first words, for a reader, and a digest of all, for uniqueness."""
    said = [part for part in parts if part is not None]
    words = re.findall(r"[a-z0-9]+", " ".join(said).lower())[:5]
    return "-".join([*words, hashlib.sha256("\0".join(said).encode("utf-8")).hexdigest()[:8]])
