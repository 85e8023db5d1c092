"""Reading prompts into a cache: each distinct prompt once, and only the new part of a dialogue that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import Cache, DynamicCache

from pipeline.engines.prefixes import NOTHING, Beginning, Dialogue, Prefixes
from pipeline.engines.window import WindowCache, n_window_layers

_WORTH_IT = 0.75
"""Use kept beginnings if what remains is at most this share of the longest prompt: laying them out has a cost."""

_PADDING = 256
"""Tokens of padding that cost about as much as one more pass: fewer are cheaper to compute than to avoid."""

READ_AT_ONCE = 1 << 15
"""Tokens of one pass over prompts, padding included: the memory that a pass takes beside the cache grows with them."""


class Model(NamedTuple):
    """What decoding needs from a model."""

    forward: Any  # a causal language model of transformers, bare or under adapters
    end_tokens: Sequence[int]
    pad: int

    def logits(self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Logits [rows, vocabulary] after the last token; all tokens [rows, columns] are added to the cache."""
        output = self.forward(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


class Reading(NamedTuple):
    """Prompts that were read: logits after each, and the cache with its mask [rows, columns]; rows end together."""

    logits: torch.Tensor
    mask: torch.Tensor
    cache: Cache


def read_prompts(model: Model, prompts: Sequence[Sequence[int]], prefixes: Prefixes | None) -> Reading:
    """Read prompts into one cache, those of similar length together.

    Args:
        model: model to read them with.
        prompts: token ids; equal prompts are read once.
        prefixes: dialogues that prompts may begin with, or None.
    """
    row: dict[tuple[int, ...], int] = {}
    of = [row.setdefault(tuple(prompt), len(row)) for prompt in prompts]
    distinct = list(row)
    beginnings = [prefixes.longest(prompt) for prompt in distinct] if prefixes else [NOTHING] * len(distinct)
    rests = [len(prompt) - begun.length for prompt, begun in zip(distinct, beginnings, strict=True)]
    groups = _alike(rests) if n_window_layers(model.forward.config) else [list(range(len(distinct)))]
    readings = [_read_group(model, [distinct[i] for i in group], [beginnings[i] for i in group]) for group in groups]
    read = readings[0] if len(readings) == 1 else _joined(readings)
    place = {i: number for number, i in enumerate(i for group in groups for i in group)}
    chosen = [place[i] for i in of]
    if chosen == list(range(len(distinct))):
        return read
    rows = torch.tensor(chosen, device=read.mask.device)
    read.cache.reorder_cache(rows)
    return Reading(read.logits[rows], read.mask[rows], read.cache)


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in groups of similar lengths, the longest first, each padded by ``_PADDING`` tokens in all at most."""
    groups: list[list[int]] = []
    longest = padding = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        padding += longest - lengths[i]
        if not groups or padding > _PADDING:
            groups.append([])
            longest, padding = lengths[i], 0
        groups[-1].append(i)
    return groups


def _read_group(model: Model, prompts: Sequence[Sequence[int]], beginnings: Sequence[Beginning]) -> Reading:
    # The longest remainder determines the cost of the pass, however much of the other prompts is known.
    rest = max(len(prompt) - begun.length for prompt, begun in zip(prompts, beginnings, strict=True))
    worth_it = rest <= _WORTH_IT * max(map(len, prompts))
    return _read_on(model, prompts, beginnings) if worth_it else _read(model, prompts)


def _joined(readings: Sequence[Reading]) -> Reading:
    """Several readings as one; their caches are used up, layer by layer, so that hardly anything is held twice."""
    width = max(reading.mask.shape[1] for reading in readings)
    cache = WindowCache(len(readings[0].cache.layers))
    for number in range(len(cache.layers)):
        layers = [reading.cache.layers.pop(0) for reading in readings]
        keys = torch.cat([pad(layer.keys, (0, 0, width - layer.keys.shape[2], 0)) for layer in layers])
        values = torch.cat([pad(layer.values, (0, 0, width - layer.values.shape[2], 0)) for layer in layers])
        cache.update(keys, values, number)
    mask = torch.cat([pad(reading.mask, (width - reading.mask.shape[1], 0)) for reading in readings])
    return Reading(torch.cat([reading.logits for reading in readings]), mask, cache)


def _read(model: Model, prompts: Sequence[Sequence[int]]) -> Reading:
    config = model.forward.config
    tokens, mask = left_padded(prompts, model.pad, model.forward.device)
    n_layers = n_window_layers(config)
    positions = positions_of(mask)
    if n_layers is None:
        cache = DynamicCache(config=config)
        return Reading(model.logits(tokens, mask, positions, cache), mask, cache)
    cache = WindowCache(n_layers)
    return Reading(_in_pieces(model, tokens, mask, positions, cache), mask, cache)


def _in_pieces(
    model: Model, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: WindowCache
) -> torch.Tensor:
    """Logits after the last of the tokens [rows, columns], which the cache takes up some columns at a time."""
    rows, columns = tokens.shape
    known = mask.shape[1] - columns
    step = max(READ_AT_ONCE // rows, 1)
    for start in range(0, columns, step):
        piece = slice(start, start + step)
        logits = model.logits(tokens[:, piece], mask[:, : known + start + step], positions[:, piece], cache)
    return logits


def _read_on(model: Model, prompts: Sequence[Sequence[int]], beginnings: Sequence[Beginning]) -> Reading:
    """Read what follows the known beginnings of prompts."""
    device = model.forward.device
    lengths = [length for _, length in beginnings]
    old = left_padded([[1] * length for length in lengths], 0, device)[1]
    tokens, new = left_padded(
        [prompt[length:] for prompt, length in zip(prompts, lengths, strict=True)], model.pad, device
    )
    mask = torch.cat([old, new], dim=1)
    known = next(begun.dialogue.layers for begun in beginnings if begun.length)
    cache = WindowCache(len(known))
    for layer, of_layer in enumerate(known):
        laid = [states.new_zeros(len(prompts), states.shape[0], old.shape[1], states.shape[2]) for states in of_layer]
        for row, (dialogue, length) in enumerate(beginnings):
            if length:
                for side_by_side, states in zip(laid, dialogue.layers[layer], strict=True):
                    side_by_side[row, :, -length:] = states[:, :length]
        cache.update(*laid, layer)
    logits = _in_pieces(model, tokens, mask, positions_of(mask)[:, old.shape[1] :], cache)
    # Remove empty columns between beginning and remainder: they would be read in every step.
    longest = int(mask.sum(1).max())
    columns = mask.argsort(dim=1, stable=True)[:, -longest:]
    cache.pick_columns(columns)
    return Reading(logits, mask.gather(1, columns), cache)


def keep_dialogue(prefixes: Prefixes, tokens: list[int], cache: Cache, row: int, mask: torch.Tensor) -> None:
    """Keep a row of a cache for later turns of its dialogue.

    Args:
        prefixes: where to keep it.
        tokens: the dialogue so far, as the first of the row's columns hold it.
        cache: cache with the row.
        row: index of the row.
        mask: mask of the row [columns].
    """
    one_token = sum(layer.keys[row, :, 0].nbytes + layer.values[row, :, 0].nbytes for layer in cache.layers)
    if prefixes.has_room(one_token * len(tokens)):
        columns = mask.nonzero()[: len(tokens), 0]
        layers = [(layer.keys[row][:, columns], layer.values[row][:, columns]) for layer in cache.layers]
        prefixes.keep(Dialogue(tokens, layers))


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Position of every column in the text of its row."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [rows, longest], with padding on the left."""
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens.to(device), mask.to(device)
