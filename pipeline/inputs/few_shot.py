"""Example exchanges that critic and reviser see before the exchange at hand."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import InputError
from pipeline.inputs.prompt_cells import read_message
from pipeline.inputs.text_files import read_text


def load_few_shot(path: Path) -> list[dict[str, str]]:
    """The turns of all example chats, one after the other.

    Args:
        path: JSON file: a list of chats, each a list of turns with ``role`` and ``content``.

    Raises:
        InputError: it cannot be read, is not such a list, or a turn has another role or no text; names chat and turn.
    """
    try:
        chats = json.loads(read_text(path, "few_shot"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno}); "
            "few_shot takes a JSON list of chats."
        ) from error
    if not isinstance(chats, list):
        raise InputError(f"{path}: few_shot takes a JSON list of chats, found {type(chats).__name__}.")
    turns = []
    for number, chat in enumerate(chats, 1):
        where = f"{path}: chat {number}"
        if not (isinstance(chat, list) and all(isinstance(turn, dict) for turn in chat)):
            raise InputError(f"{where}: expected a list of turns, each an object with `role` and `content`.")
        turns += [read_message(turn, where, place) for place, turn in enumerate(chat, 1)]
    return turns
