"""Decoding prompts of different lengths: the batch stays full, as waiting prompts take the places of finished rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import Cache

from pipeline.engines.base import Sampling
from pipeline.engines.prefill import Model, keep_dialogue, positions_of, read_prompts
from pipeline.engines.prefixes import Prefixes
from pipeline.engines.sampling import draw_tokens
from pipeline.engines.window import WindowCache

_REFILL_AT = 0.25
"""Let waiting prompts in once this share of the batch is free: a pass for one prompt costs nearly that of many."""

_COMPACT_BELOW = 0.75
"""With no prompt waiting, drop finished rows once fewer than this share are active: copying the cache is costly."""


class Rows(NamedTuple):
    """The rows being decoded."""

    prompt: torch.Tensor  # [rows], index of the prompt that it answers
    step: torch.Tensor  # [rows], number of tokens drawn so far
    going: torch.Tensor  # [rows], bool: not ended yet
    token: torch.Tensor  # [rows], the token drawn last
    position: torch.Tensor  # [rows], position of that token
    mask: torch.Tensor  # [rows, columns of the cache]

    def chosen(self, rows: torch.Tensor) -> Rows:
        """Some of the rows."""
        return Rows(*(field[rows] for field in self))


class Prompt(NamedTuple):
    """A prompt to be answered.

    Attributes:
        tokens: token ids of the dialogue.
        seed: random seed of the answer.
        goes_on: whether a later prompt will begin with the dialogue and its answer.
    """

    tokens: Sequence[int]
    seed: int
    goes_on: bool = False


@torch.inference_mode()
def sample(
    model: Model, prompts: Sequence[Prompt], sampling: Sampling, batch_size: int, prefixes: Prefixes | None = None
) -> list[list[int]]:
    """Sample one answer per prompt.

    Args:
        model: model to sample from.
        prompts: prompts, best shortest first: what joins a batch is then about as long as what is in it by now, and
            attention reads few columns that are masked.
        sampling: how tokens are drawn.
        batch_size: rows decoded together.
        prefixes: dialogues that prompts may begin with; those that will be continued are added. None keeps none.

    Returns:
        The tokens of each answer, including the one that ended it.
    """
    return _Decoder(model, prompts, sampling, prefixes).run(batch_size)


class _Decoder:
    def __init__(self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, prefixes: Prefixes | None) -> None:
        self._model, self._prompts, self._sampling, self._prefixes = model, prompts, sampling, prefixes
        self._to_keep = {i for i, prompt in enumerate(prompts) if prompt.goes_on}
        self._device = model.forward.device
        self._waiting = deque(range(len(prompts)))
        self._seeds = torch.tensor([prompt.seed for prompt in prompts], dtype=torch.int64, device=self._device)
        self._ends = torch.tensor(model.end_tokens, device=self._device)
        self._drawn = torch.full((len(prompts), sampling.max_new_tokens), -1, device=self._device)

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
                    self._keep_ended(rows, cache)
                    kept = rows.going.nonzero()[:, 0]
                    cache.reorder_cache(kept)
                    rows = rows.chosen(kept)
                rows = self._step(rows, cache)
            self._keep_ended(rows, cache)
        return [[token for token in row if token >= 0] for row in self._drawn.tolist()]

    def _open(self, count: int) -> tuple[Rows, Cache]:
        """Read the next prompts into a cache of their own, and draw their first tokens."""
        joining = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        read = read_prompts(self._model, [self._prompts[i].tokens for i in joining], self._prefixes)
        prompt = torch.tensor(joining, device=self._device)
        position = positions_of(read.mask)[:, -1]
        rows = Rows(prompt, torch.zeros_like(prompt), prompt >= 0, prompt, position, read.mask)
        return self._draw(rows, read.logits), read.cache

    def _refill(self, rows: Rows, cache: WindowCache) -> Rows:
        """Let waiting prompts take the places of rows that have ended."""
        self._keep_ended(rows, cache)
        free = (~rows.going).nonzero()[:, 0]
        new, others = self._open(len(free))
        places = free[: len(new.going)]
        # Columns that only ended rows attend to are given up, and those that a longer row needs are added.
        needed = (rows.mask * rows.going[:, None]).any(dim=0)
        width = max(len(needed) - int(needed.int().argmax()), new.mask.shape[1])
        cache.resize(width)
        cache.replace(places, others)
        rows = rows._replace(mask=_widen(rows.mask, width))
        for field, values in zip(rows, new._replace(mask=_widen(new.mask, width)), strict=True):
            field[places] = values
        return rows

    def _step(self, rows: Rows, cache: Cache) -> Rows:
        """Draw one more token for every row."""
        mask = torch.nn.functional.pad(rows.mask, (0, 1), value=1)
        # Ended rows still in the batch keep their position: learned positions end with the context.
        rows = rows._replace(mask=mask, position=rows.position + rows.going)
        return self._draw(rows, self._model.logits(rows.token[:, None], mask, rows.position[:, None], cache))

    def _keep_ended(self, rows: Rows, cache: Cache) -> None:
        """Keep the dialogues to be continued, from ended rows that are about to give up their places."""
        if self._prefixes is None:
            return
        for row in (~rows.going).nonzero()[:, 0].tolist():
            i = int(rows.prompt[row])
            if i in self._to_keep:
                self._to_keep.remove(i)
                answer = self._drawn[i][self._drawn[i] >= 0].tolist()
                tokens = [*self._prompts[i].tokens, *answer[:-1]]  # the last one was drawn but never read
                keep_dialogue(self._prefixes, tokens, cache, row, rows.mask[row])

    def _draw(self, rows: Rows, logits: torch.Tensor) -> Rows:
        new = draw_tokens(logits, self._seeds[rows.prompt], rows.step, self._sampling)
        # Without boolean masks, each of which would wait for the GPU: an ended row writes what is there already.
        at = rows.step.clamp(max=self._sampling.max_new_tokens - 1)
        self._drawn[rows.prompt, at] = torch.where(rows.going, new, self._drawn[rows.prompt, at])
        step = rows.step + 1
        going = rows.going & ~torch.isin(new, self._ends) & (step < self._sampling.max_new_tokens)
        return rows._replace(step=step, going=going, token=new)


def _widen(mask: torch.Tensor, width: int) -> torch.Tensor:
    """The mask of the last ``width`` columns, as a copy."""
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0)).clone()
