"""Dialogues that go on: what a model computed of them is kept, so that the next turn reads only what is new.

A rewrite is asked for in the dialogue of its critique. Its prompt begins with the tokens of that dialogue, and a
causal model's keys and values of a token depend on nothing that comes later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

_BLOCK = 16
"""Tokens after which a shared beginning is looked up."""


class Dialogue(NamedTuple):
    """A dialogue that was read, and for every layer its keys and values [heads, tokens, width]."""

    tokens: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]


class Beginning(NamedTuple):
    """How much of a prompt, in tokens, a dialogue that was read begins with."""

    dialogue: Dialogue
    length: int


NOTHING = Beginning(Dialogue([], []), 0)
"""The beginning of a prompt that begins with no dialogue."""


class Prefixes:
    """Dialogues of one model under one adapter, found by their beginnings.

    Args:
        room: for keys and values, in bytes; what does not fit is not kept.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.clear()

    def clear(self) -> None:
        """Forget all dialogues."""
        self._free = self._room
        self._found: dict[int, Dialogue] = {}

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more can be kept."""
        return size <= self._free

    def keep(self, dialogue: Dialogue) -> None:
        """Keep a dialogue, if there is room for it."""
        size = sum(keys.nbytes + values.nbytes for keys, values in dialogue.layers)
        if self.has_room(size):
            self._free -= size
            self._found.update((mark, dialogue) for mark in _marks(dialogue.tokens))

    def longest(self, prompt: Sequence[int]) -> Beginning:
        """The dialogue that shares most with the beginning of a prompt; at least one token is left to be read."""
        best = NOTHING.dialogue
        for mark in _marks(prompt[:-1]):
            if mark not in self._found:
                break
            best = self._found[mark]
        most = min(len(best.tokens), len(prompt) - 1)
        # Compared token by token, since marks may collide.
        return Beginning(best, next((i for i in range(most) if best.tokens[i] != prompt[i]), most))


def _marks(tokens: Sequence[int]) -> Iterator[int]:
    """A hash of the beginning after every whole block."""
    mark = 0
    for end in range(_BLOCK, len(tokens) + 1, _BLOCK):
        mark = hash((mark, *tokens[end - _BLOCK : end]))
        yield mark
