"""Turns one cell of a prompt file into a dialogue that ends with the user."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.errors import InputError

ROLES = ("system", "user", "assistant")

_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
# A role name opens a turn only after an empty line and with a space behind it; elsewhere it is the speaker's own
# text. Dialogues cut before their last answer end in a bare "Assistant:", and an empty turn is directly followed by
# the next one.
_HH_TURN = re.compile(r"\n\n(Human|Assistant):(?: |\Z|(?=\n\n(?:Human|Assistant):))")
_MESSAGES_AS_JSON = re.compile(r"\s*\[\s*\{")


class Dialogue(NamedTuple):
    """The turns in one cell.

    ``drop_reason`` says why it cannot be used as a prompt; ``changes`` names what was done to the cell.
    """

    messages: tuple[dict[str, str], ...]
    drop_reason: str | None = None
    changes: tuple[str, ...] = ()


def read_cell(cell: Any, where: str) -> Dialogue:
    """Read a cell: plain text, hh-rlhf text, a list of role/content messages, or a list of user turns.

    Plain and hh-rlhf text lose their outer white space; messages are kept as they are, except for keys other
    than ``role`` and ``content``. Answers after the last user turn are removed (the policy is to write them).
    Of a list of plain user turns only the first is used, since the later ones need an answer before them.

    Args:
        cell: the value as the file has it; ``None`` counts as empty.
        where: file, line and column name, for error messages.

    Raises:
        InputError: the cell is of another type, or a message lacks its role or its content.
    """
    if cell is None:
        return Dialogue((), "empty_prompt")
    if isinstance(cell, str):
        return _from_text(cell, where)
    if isinstance(cell, list) and all(isinstance(turn, str) for turn in cell):
        first = _from_text(cell[0] if cell else "", where)
        return first._replace(changes=("later_user_turns_left_out",)) if len(cell) > 1 else first
    if isinstance(cell, list) and all(isinstance(turn, dict) for turn in cell):
        return _to_be_answered([read_message(turn, where, n) for n, turn in enumerate(cell, 1)], [])
    raise InputError(
        f"{where}: holds a value of type {type(cell).__name__}; expected text, a list of texts, or a list of "
        "messages with `role` and `content`. Name another column, or correct the file."
    )


def unpack_messages(cell: Any, where: str) -> Any:
    """A cell of a CSV file, where a list of messages is written as JSON; other cells are returned as they are.

    Raises:
        InputError: the cell begins like such a list and is none.
    """
    if not isinstance(cell, str) or not _MESSAGES_AS_JSON.match(cell):
        return cell
    try:
        turns = json.loads(cell)
        fault = "it is not a list of objects with `role` and `content`"
    except json.JSONDecodeError as error:
        turns, fault = [], f"it is not valid JSON: {error.msg} (character {error.pos + 1} of the cell)"
    if not turns or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        raise InputError(
            f"{where}: begins like a list of messages in JSON, but {fault}. Correct the cell, or give the file as "
            "JSONL, where lists are lists and text that begins so is text."
        )
    return turns


def parse_hh(text: str) -> list[dict[str, str]] | None:
    r"""Turns of a dialogue in the format of Anthropic's hh-rlhf, or None if the text is not in that format.

    The text opens with ``\n\nHuman: `` or ``\n\nAssistant: ``. Text that lost the leading empty lines counts
    if it opens with ``Human: `` and a later turn follows. Contents are stripped.
    """
    body = "\n\n" + text.lstrip()
    if not _HH_TURN.match(body):
        return None
    parts = _HH_TURN.split(body)
    if not _HH_TURN.match(text) and (parts[1] != "Human" or len(parts) < 5):
        return None
    return [
        {"role": _HH_ROLES[name], "content": content.strip()}
        for name, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _from_text(text: str, where: str) -> Dialogue:
    _refuse_lone_surrogates(text, where)
    turns = parse_hh(text)
    if turns is None:
        content = text.strip()
        return Dialogue(({"role": "user", "content": content},)) if content else Dialogue((), "empty_prompt")
    joined: list[dict[str, str]] = []
    for turn in turns:
        # Chat templates expect roles to alternate, and a few of the dialogues have an answer in two pieces.
        if joined and joined[-1]["role"] == turn["role"]:
            content = f"{joined[-1]['content']}\n\n{turn['content']}".strip()
            joined[-1] = {"role": turn["role"], "content": content}
        else:
            joined.append(turn)
    return _to_be_answered(joined, ["turns_joined"] if len(joined) < len(turns) else [])


def read_message(turn: Mapping[str, Any], where: str, number: int) -> dict[str, str]:
    """A message's role and content, without its other keys.

    Args:
        turn: the message as the file has it.
        where: where the dialogue is, for error messages.
        number: the message's place in it, from 1.

    Raises:
        InputError: role or content is missing, or not a known role and text.
    """
    role, content = turn.get("role"), turn.get("content")
    if role is None or "content" not in turn:
        raise InputError(
            f"{where}: message {number} has the keys {', '.join(map(str, turn)) or '(none)'}; "
            "it needs `role` and `content`."
        )
    if role not in ROLES:
        raise InputError(f"{where}: message {number} has the role {role!r}; use one of {', '.join(ROLES)}.")
    if not isinstance(content, str):
        raise InputError(
            f"{where}: the content of message {number} is of type {type(content).__name__}; expected text."
        )
    _refuse_lone_surrogates(content, where)
    return {"role": role, "content": content}


def _to_be_answered(messages: list[dict[str, str]], changes: list[str]) -> Dialogue:
    if not messages:
        return Dialogue((), "empty_prompt")
    if messages[-1]["role"] == "assistant":
        changes = [*changes, "final_answer_removed"]
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1]["role"] != "user":
        return Dialogue(tuple(messages), "no_user_turn")
    if not messages[-1]["content"].strip():
        return Dialogue(tuple(messages), "empty_prompt")
    if not all(message["content"].strip() for message in messages):
        return Dialogue(tuple(messages), "empty_earlier_turn")
    return Dialogue(tuple(messages), None, tuple(changes))


def _refuse_lone_surrogates(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: character {error.start + 1} is half of a surrogate pair ({text[error.start]!r}), "
            "which no UTF-8 file can hold. Correct the escape in the file."
        ) from error
