"""Decoding prompts of unlike length: the batch stays full, as waiting prompts take the places of finished rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache, DynamicCache

from pipeline.engines.base import Sampling
from pipeline.engines.sampling import draw_tokens
from pipeline.engines.window import WindowCache, n_window_layers

_REFILL_AT = 0.25
"""Let waiting prompts in once this share of the batch is free: a pass for one prompt costs nearly that of many."""

_COMPACT_BELOW = 0.75
"""When nobody waits, drop finished rows once fewer than this share is going: copying the cache has a price."""


class Model(NamedTuple):
    """What decoding needs of a model."""

    forward: Any  # a causal language model of transformers, bare or under adapters
    end_tokens: Sequence[int]
    pad: int


class Rows(NamedTuple):
    """What is being decoded, a row each."""

    prompt: torch.Tensor  # [rows], which prompt it answers
    step: torch.Tensor  # [rows], how many tokens it has drawn
    going: torch.Tensor  # [rows], bool: not ended yet
    token: torch.Tensor  # [rows], the token drawn last
    position: torch.Tensor  # [rows], of that token
    mask: torch.Tensor  # [rows, columns of the cache]

    def chosen(self, rows: torch.Tensor) -> Rows:
        """Some of the rows."""
        return Rows(*(field[rows] for field in self))


@torch.inference_mode()
def sample(
    model: Model, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, batch_size: int
) -> list[list[int]]:
    """Sample one answer a prompt.

    Args:
        model: that answers.
        prompts: token ids, longest first: what joins a batch must not be longer than what is in it.
        seeds: one a prompt; which tokens an answer draws depends on its own seed alone.
        sampling: how they are drawn.
        batch_size: rows decoded together.

    Returns:
        The tokens of each answer, with the one that ended it.
    """
    return _Decoder(model, prompts, seeds, sampling).run(batch_size)


class _Decoder:
    def __init__(
        self, model: Model, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> None:
        self._model, self._sampling = model, sampling
        self._device = model.forward.device
        self._waiting = deque(range(len(prompts)))
        self._prompts = prompts
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=self._device)
        self._ends = torch.tensor(model.end_tokens, device=self._device)
        self._drawn = torch.full((len(prompts), sampling.max_new_tokens), -1, device=self._device)
        self._n_layers = n_window_layers(model.forward.config)

    def run(self, batch_size: int) -> list[list[int]]:
        """Decode everything."""
        while self._waiting:
            rows, cache = self._open(batch_size)
            while alive := int(rows.going.sum()):
                if self._waiting and isinstance(cache, WindowCache):
                    if batch_size - alive >= _REFILL_AT * batch_size:
                        rows = self._refill(rows, cache)
                        continue
                elif alive < _COMPACT_BELOW * len(rows.going):
                    kept = rows.going.nonzero()[:, 0]
                    cache.reorder_cache(kept)
                    rows = rows.chosen(kept)
                rows = self._step(rows, cache)
        return [[token for token in row if token >= 0] for row in self._drawn.tolist()]

    def _open(self, count: int) -> tuple[Rows, Cache]:
        """Read the next prompts into a cache of their own, and draw their first tokens."""
        joining = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        tokens, mask = left_padded([self._prompts[i] for i in joining], self._model.pad, self._device)
        config = self._model.forward.config
        cache = DynamicCache(config=config) if self._n_layers is None else WindowCache(self._n_layers)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._logits(tokens, mask, positions, cache)
        prompt = torch.tensor(joining, device=self._device)
        rows = Rows(prompt, torch.zeros_like(prompt), prompt >= 0, prompt, positions[:, -1], mask)
        return self._draw(rows, logits), cache

    def _refill(self, rows: Rows, cache: WindowCache) -> Rows:
        """Let waiting prompts take the places of rows that have ended."""
        # Columns that only ended rows look at are given up first.
        needed = (rows.mask * rows.going[:, None]).any(dim=0)
        unused = int(needed.int().argmax())
        cache.trim(unused)
        free = (~rows.going).nonzero()[:, 0]
        new, others = self._open(len(free))
        places = free[: len(new.going)]
        cache.replace(places, others)
        width = rows.mask.shape[1] - unused
        mask = torch.nn.functional.pad(new.mask, (width - new.mask.shape[1], 0))
        rows = rows._replace(mask=rows.mask[:, unused:].clone())
        for field, values in zip(rows, new._replace(mask=mask), strict=True):
            field[places] = values
        return rows

    def _step(self, rows: Rows, cache: Cache) -> Rows:
        """Draw one token more for every row."""
        mask = torch.nn.functional.pad(rows.mask, (0, 1), value=1)
        rows = rows._replace(mask=mask, position=rows.position + 1)
        return self._draw(rows, self._logits(rows.token[:, None], mask, rows.position[:, None], cache))

    def _draw(self, rows: Rows, logits: torch.Tensor) -> Rows:
        new = draw_tokens(logits, self._seeds[rows.prompt], rows.step, self._sampling)
        self._drawn[rows.prompt[rows.going], rows.step[rows.going]] = new[rows.going]
        step = rows.step + 1
        going = rows.going & ~torch.isin(new, self._ends) & (step < self._sampling.max_new_tokens)
        return rows._replace(step=step, going=going, token=new)

    def _logits(self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache) -> torch.Tensor:
        output = self._model.forward(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [rows, longest], every row at the right end."""
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return tokens.to(device), mask.to(device)
