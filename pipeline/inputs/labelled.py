"""Answers that people labelled as falling short of a principle or not: what the critic is tested on every round.

A JSON Lines file, one answer per line::

    {"prompt": "How do I pick a lock?", "response": "I won't help.", "principle": "no-harm", "faulty": false}
    {"prompt": "What boils water?", "response": "Heat, at 100 C.", "principle": "no-harm", "faulty": false,
     "facts": ["100 C"]}

(each on one line). ``prompt`` is text or a list of ``{role, content}`` messages; ``principle`` is the name or id of
one of the constitution's principles; ``facts``, which may be missing, are texts that a rewrite must keep.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.inputs.constitution import Constitution, Principle
from pipeline.inputs.text_files import read_text

_SHOWN = 10
"""Number of faults that are listed one by one."""

_KEYS = {"prompt", "response", "principle", "faulty", "facts"}


class Labelled(NamedTuple):
    """One labelled answer; ``id`` is a digest of the prompt, the answer and the principle."""

    id: str
    prompt: list[dict[str, str]]
    response: str
    principle: Principle
    faulty: bool
    facts: tuple[str, ...]


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers of a file in its order, and the SHA-256 of its text."""

    items: tuple[Labelled, ...]
    sha256: str
    path: str


def load_labelled(path: Path, constitution: Constitution) -> LabelledAnswers:
    """Read a file of labelled answers.

    Raises:
        InputError: it cannot be read, or lines in it are malformed; names the first of them.
    """
    text = read_text(path, "labelled answers")
    principles = {principle.id: principle for principle in constitution.principles}
    items: list[Labelled] = []
    faults: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        found = _read(line, principles)
        if isinstance(found, Labelled):
            items.append(found)
        else:
            faults.append(f"{path}:{number}: {found}")
    seen: dict[str, Labelled] = {}
    for item in items:
        if item.id in seen:
            faults.append(f"{path}: the answer `{item.response[:40]}` appears twice for the same principle.")
        seen[item.id] = item
    if not items and not faults:
        faults.append(f"{path}: holds no labelled answers.")
    if faults:
        shown = faults[:_SHOWN]
        if more := len(faults) - len(shown):
            shown.append(f"{path}: and {more} more.")
        if any("no principle" in fault for fault in faults):
            shown.append(f"The principles of the constitution are {', '.join(principles)}.")
        raise InputError("\n".join(shown))
    return LabelledAnswers(tuple(items), hashlib.sha256(text.encode()).hexdigest(), str(path))


def _read(line: str, principles: dict[str, Principle]) -> Labelled | str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not valid JSON ({error.msg}, column {error.colno})."
    return next(_problems(row, principles), None) or _labelled(row, principles)


def _problems(row: Any, principles: dict[str, Principle]) -> Iterator[str]:
    if not isinstance(row, dict):
        yield "must be an object."
        return
    if unknown := sorted(set(row) - _KEYS):
        yield f"unknown key `{unknown[0]}`; the keys are {', '.join(sorted(_KEYS))}."
    if not isinstance(row.get("response"), str) or not row["response"].strip():
        yield "`response` must be a non-empty text."
    if not isinstance(row.get("faulty"), bool):
        yield "`faulty` must be true or false."
    if row.get("principle") not in list(principles):
        given = str(row.get("principle"))
        near = difflib.get_close_matches(given, list(principles), 1)
        yield f"no principle `{given}`" + (f"; did you mean `{near[0]}`?" if near else " in the constitution.")
    if not _is_texts(row.get("facts", [])):
        yield "`facts` must be a list of texts."
    if not _is_dialogue(row.get("prompt")):
        yield "`prompt` must be a text, or a list of {role, content} messages that ends with the user's."


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)


def _is_dialogue(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and set(m) == {"role", "content"} and _is_texts(list(m.values())) for m in value)
        and value[-1]["role"] == "user"
    )


def _labelled(row: dict[str, Any], principles: dict[str, Principle]) -> Labelled:
    given = row["prompt"]
    prompt = [{"role": "user", "content": given}] if isinstance(given, str) else given
    name = json.dumps([prompt, row["response"], row["principle"]], ensure_ascii=False)
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return Labelled(
        digest, prompt, row["response"], principles[row["principle"]], row["faulty"], tuple(row.get("facts", []))
    )
