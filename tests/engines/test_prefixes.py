"""Finding the dialogue that a prompt begins with."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.prefixes import Dialogue, Prefixes

BLOCK = 16
few_tokens = st.lists(st.integers(0, 1), max_size=80)


def dialogue(tokens: list[int]) -> Dialogue:
    states = torch.zeros(1, len(tokens), 1, dtype=torch.uint8)
    return Dialogue(tokens, [(states, states)])


def shared(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(kept=st.lists(few_tokens, max_size=6), prompt=few_tokens, of=st.integers(0, 5), cut=st.integers(0, 80))
def test_the_longest_beginning_is_found_up_to_a_block(
    kept: list[list[int]], prompt: list[int], of: int, cut: int
) -> None:
    if of < len(kept):
        prompt = kept[of][:cut] + prompt  # or next to none would begin alike
    prefixes = Prefixes(10_000)
    for tokens in kept:
        prefixes.keep(dialogue(tokens))
    found = prefixes.longest(prompt)
    longest = max([min(shared(tokens, prompt), len(prompt) - 1) for tokens in kept], default=0)
    assert found.dialogue.tokens[: found.length] == prompt[: found.length]
    assert longest - BLOCK < found.length <= longest < max(len(prompt), 1)


def test_room_is_counted_and_given_back() -> None:
    prefixes = Prefixes(100)
    prefixes.keep(dialogue([1] * 30))  # 60 bytes
    assert prefixes.has_room(40) and not prefixes.has_room(41)
    prefixes.keep(dialogue([2] * 30))
    assert (prefixes.longest([1] * 31).length, prefixes.longest([2] * 31).length) == (30, 0)
    prefixes.clear()
    assert prefixes.has_room(100) and prefixes.longest([1] * 31).length == 0
