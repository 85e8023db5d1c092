"""A key-value cache whose rows come and go: new rows replace finished ones while the others continue.

All rows end at the same column but may begin at different ones: a new row is written into the columns just before the
end, and what lies before it is masked. So replacing a row copies nothing else; columns that no row needs any more are
dropped on the left.
"""

from __future__ import annotations

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM = 128
"""Spare columns of a new buffer of a layer, so that it is copied once in this many steps and not in every one."""


class WindowLayer(DynamicLayer):
    """Keys and values [rows, heads, columns, width] of one layer, in a buffer with room to grow."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[torch.Tensor] = []
        self._start = self._end = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns for every row; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = (key_states, value_states)
        count = key_states.shape[-2]
        if not self._buffers or self._end + count > self._buffers[0].shape[-2]:
            self._make_room(new)
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[:, :, self._end : self._end + count] = states
        self._end += count
        return self._show()

    def trim(self, count: int) -> None:
        """Drop columns on the left."""
        self._start += count
        self._show()

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep some rows."""
        self._buffers = [buffer[:, :, self._start : self._end][beam_idx] for buffer in self._buffers]
        self._start, self._end = 0, self._end - self._start
        self._show()

    def pick_columns(self, columns: torch.Tensor) -> None:
        """Keep some columns [rows, kept], chosen separately for every row."""
        self._buffers = [
            states.gather(2, columns[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3]))
            for states in (self.keys, self.values)
        ]
        self._start, self._end = 0, columns.shape[1]
        self._show()

    def replace(self, rows: torch.Tensor, other: DynamicLayer) -> None:
        """Write the rows of another layer, which has no more columns than this one, over some rows of this one."""
        count = other.get_seq_length()
        for buffer, states in zip(self._buffers, (other.keys, other.values), strict=True):
            buffer[rows, :, self._end - count : self._end] = states

    def _make_room(self, new: tuple[torch.Tensor, torch.Tensor]) -> None:
        width = self._end - self._start
        grown = []
        for i, states in enumerate(new):
            rows, heads, count, size = states.shape
            buffer = states.new_zeros(rows, heads, width + count + ROOM, size)
            if self._buffers:
                buffer[:, :, :width] = self._buffers[i][:, :, self._start : self._end]
            grown.append(buffer)
        self._buffers, self._start, self._end = grown, 0, width

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (buffer[:, :, self._start : self._end] for buffer in self._buffers)
        return self.keys, self.values


class WindowCache(Cache):
    """The cache of a model whose layers all attend to past keys and values, to all of them or to a sliding window.

    Layers with a sliding window keep all columns here: the mask determines which of them a token sees.
    """

    def __init__(self, n_layers: int) -> None:
        super().__init__(layers=[WindowLayer() for _ in range(n_layers)])

    def trim(self, count: int) -> None:
        """Drop columns on the left, in every layer."""
        for layer in self.layers:
            layer.trim(count)

    def pick_columns(self, columns: torch.Tensor) -> None:
        """Keep some columns [rows, kept] in every layer, chosen separately for every row."""
        for layer in self.layers:
            layer.pick_columns(columns)

    def replace(self, rows: torch.Tensor, other: Cache) -> None:
        """Write the rows of another cache over some rows of this one."""
        for layer, others in zip(self.layers, other.layers, strict=True):
            layer.replace(rows, others)


def n_window_layers(config: object) -> int | None:
    """Number of layers in a window cache for this model; None if some of its layers keep another kind of memory."""
    layers = DynamicCache(config=config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return len(layers) if plain and layers else None


def sees_everything(config: object) -> bool:
    """Whether every token of this model sees all tokens before it, in every layer."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
