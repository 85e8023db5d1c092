"""Converts constitutions in other projects' JSON to the plain text that is edited here.

Three forms are known: llm-swarm's ``{"constitutions": [{"critic", "revision"}], "system_chat": […]}``,
Anthropic's ``CritiqueRevisionInstructions.json`` with ``{"harmful0": {"prompt": […], "edit_request": …}}``, and
open character training's list of ``{"trait": …}``.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError
from pipeline.inputs.constitution.parser import KEY_LINE

_WIDTH = 100
_CRITIQUE_SCAFFOLD = re.compile(r"\A\s*CritiqueRequest:|Critique:\s*\Z")
_REVISION_SCAFFOLD = re.compile(r"\A\s*RevisionRequest:|Revision:\s*\Z")


class ImportedPrinciple(NamedTuple):
    """A principle to be written to a file: either ``text``, or ``critique`` and ``revise``."""

    name: str
    text: str | None = None
    critique: str | None = None
    revise: str | None = None


def read_json(path: Path) -> Any:
    """The value in a JSON file, whatever the file's suffix.

    Raises:
        InputError: the file cannot be read or is not JSON; the message names the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from error


def import_principles(data: Any, source: str) -> list[ImportedPrinciple]:
    """The principles in a parsed JSON file, in its order, without the scaffold of Anthropic's requests.

    Args:
        data: the parsed file.
        source: its name in error messages.

    Raises:
        InputError: the value has none of the three forms, or an entry lacks a text.
    """
    if isinstance(data, dict) and isinstance(data.get("constitutions"), list):
        return [
            ImportedPrinciple(
                f"principle-{number:02}",
                critique=_text(entry, "critic", f"{source}: constitutions[{number - 1}]"),
                revise=_text(entry, "revision", f"{source}: constitutions[{number - 1}]"),
            )
            for number, entry in enumerate(data["constitutions"], 1)
        ]
    if isinstance(data, list) and data and all(isinstance(entry, dict) and "trait" in entry for entry in data):
        return [
            ImportedPrinciple(f"trait-{number:02}", text=_text(entry, "trait", f"{source}: entry {number}"))
            for number, entry in enumerate(data, 1)
        ]
    if isinstance(data, dict) and data and all(_is_instruction(entry) for entry in data.values()):
        return [_from_instruction(key, entry, f"{source}: {key}") for key, entry in data.items()]
    raise InputError(
        f"{source}: not a constitution in a known JSON format; expected `constitutions` with `critic` and "
        "`revision`, or entries with `prompt` and `edit_request`, or a list of entries with `trait`."
    )


def few_shot_chats(data: Any, source: str) -> list[list[dict[str, str]]]:
    """The example chats of an llm-swarm file (``system_chat``): lists of role/content messages.

    Raises:
        InputError: there are none, or one is not a list of messages.
    """
    chats = data.get("system_chat") if isinstance(data, dict) else None
    if not isinstance(chats, list) or not chats:
        raise InputError(f"{source}: no `system_chat` to export; leave out --few_shot.")
    for number, chat in enumerate(chats):
        where = f"{source}: system_chat[{number}]"
        if not isinstance(chat, list) or not chat:
            raise InputError(f"{where}: expected a list of messages.")
        for message in chat:
            _text(message, "content", where)
            if _text(message, "role", where) not in ("system", "user", "assistant"):
                raise InputError(f"{where}: unknown role {message['role']!r}; use system, user or assistant.")
    return [[{"role": m["role"], "content": m["content"]} for m in chat] for chat in chats]


def constitution_text(principles: list[ImportedPrinciple], heading: str) -> str:
    r"""A constitution file that holds the principles, wrapped for reading.

    Parsing it gives their texts back, except that each run of white space becomes one space. A line that would be
    taken for a comment or a key gets a backslash in front.
    """
    paragraphs = ["# " + " ".join(heading.split())]
    for principle in principles:
        lines = [f"name: {principle.name}"]
        if principle.text is not None:
            lines += [_as_text(line) for line in _wrapped(principle.text)]
        for key, value in (("critique", principle.critique), ("revise", principle.revise)):
            if value is not None:
                first, *rest = _wrapped(f"{key}: {value}")
                lines += [first, *map(_as_text, rest)]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _as_text(line: str) -> str:
    return "\\" + line if line.startswith(("#", "\\")) or KEY_LINE.match(line) else line


def _text(entry: Any, key: str, where: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: `{key}` is missing, empty or not text; fill it in or delete the entry.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: `{key}` holds half of a surrogate pair; correct the escape.") from error
    return value


def _is_instruction(entry: Any) -> bool:
    return isinstance(entry, dict) and "prompt" in entry and "edit_request" in entry


def _from_instruction(key: str, entry: dict[str, Any], where: str) -> ImportedPrinciple:
    prompt = entry["prompt"]
    if isinstance(prompt, list):
        if len(prompt) != 1:
            raise InputError(f"{where}: `prompt` holds {len(prompt)} texts; make one entry for each.")
        prompt = prompt[0]
    critique = _CRITIQUE_SCAFFOLD.sub("", _text({"prompt": prompt}, "prompt", where))
    revise = _REVISION_SCAFFOLD.sub("", _text(entry, "edit_request", where))
    if not critique.strip() or not revise.strip():
        raise InputError(f"{where}: nothing is left within the scaffolding; fill it in or delete the entry.")
    return ImportedPrinciple(re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-._") or "entry", None, critique, revise)
