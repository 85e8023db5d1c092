"""The order in which rows are trained on, if the recipe wants rows of similar length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


def let_epochs_through(loader: Any) -> None:
    """Let ``set_epoch`` of a data loader of several processes reach its row order after a resume within an epoch too.

    Such a resume wraps the batches once more, and accelerate 1.15 then finds the order of all processes no longer, so
    that the rest of the epoch would be the first epoch's.
    """
    if of_all := getattr(loader.batch_sampler, "batch_sampler", None):
        loader.batch_sampler.sampler = getattr(of_all, "sampler", of_all)


class GroupedByLength(Sampler[int]):
    """transformers' order for ``train_sampling_strategy: group_by_length``, as a function of seed and epoch.

    transformers draws it from whatever state the process's generator is in, so a resumed training would skip and
    repeat rows.

    Args:
        lengths: lengths of the rows, in tokens.
        batch_size: rows per step and process.
        seed: seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before every epoch, the first after a resume included."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        drawn = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=drawn))
