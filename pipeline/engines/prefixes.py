"""Keeps what a model computed for dialogues that will be continued, so that the next turn reads only what is new.

A rewrite is asked for in the same dialogue as its critique, so its prompt begins with that dialogue's tokens; and in a
causal model a token's keys and values do not depend on anything that comes later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

_BLOCK = 16
"""Shared beginnings are looked up in blocks of this many tokens."""


class Dialogue(NamedTuple):
    """A dialogue that was read, and its keys and values [heads, tokens, width] in every layer."""

    tokens: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]


class Beginning(NamedTuple):
    """A dialogue that was read, and how many tokens at the beginning of a prompt it shares."""

    dialogue: Dialogue
    length: int


NOTHING = Beginning(Dialogue([], []), 0)
"""For a prompt that shares its beginning with no dialogue."""


class Prefixes:
    """Dialogues of one model under one adapter, found by their beginnings.

    Args:
        room: bytes for keys and values; what does not fit is not kept.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.clear()

    def clear(self) -> None:
        """Forget all dialogues."""
        self._free = self._room
        self._found: dict[int, Dialogue] = {}

    def has_room(self, size: int) -> bool:
        """Whether this many more bytes can be kept."""
        return size <= self._free

    def keep(self, dialogue: Dialogue) -> None:
        """Keep a dialogue, if there is room for it."""
        size = sum(keys.nbytes + values.nbytes for keys, values in dialogue.layers)
        if self.has_room(size):
            self._free -= size
            self._found.update((mark, dialogue) for mark in _marks(dialogue.tokens))

    def longest(self, prompt: Sequence[int]) -> Beginning:
        """The dialogue that shares the longest beginning with a prompt; at least one token is left to be read."""
        best = NOTHING.dialogue
        for mark in _marks(prompt[:-1]):
            if mark not in self._found:
                break
            best = self._found[mark]
        most = min(len(best.tokens), len(prompt) - 1)
        # Compared token by token, since marks may collide.
        return Beginning(best, next((i for i in range(most) if best.tokens[i] != prompt[i]), most))


def _marks(tokens: Sequence[int]) -> Iterator[int]:
    """A hash of the beginning up to the end of each whole block."""
    mark = 0
    for end in range(_BLOCK, len(tokens) + 1, _BLOCK):
        mark = hash((mark, *tokens[end - _BLOCK : end]))
        yield mark
