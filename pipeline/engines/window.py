"""A key-value cache whose rows come and go: new rows replace finished ones while the others continue.

All rows end at the same column but may begin at different ones: a new row is written into the columns just before the
end, and what lies before it is masked. So replacing a row copies nothing else; on the left, columns that no row needs
any more are dropped, and columns for a longer row are added.
"""

from __future__ import annotations

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM = 128
"""Spare columns on the right of a new buffer, so that it is copied once in this many steps and not in every one."""

_ROOM_BEFORE = 64
"""Spare columns on the left of a copied buffer: rows that join may be a little longer than those that are there."""


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
        if not self._buffers:
            self._buffers = [_buffer(states, 0, count + ROOM) for states in new]
        elif self._end + count > self._buffers[0].shape[-2]:
            self._move(_ROOM_BEFORE, count + ROOM)
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[:, :, self._end : self._end + count] = states
        self._end += count
        return self._show()

    def resize(self, width: int) -> None:
        """Keep so many columns on the right; new ones on the left hold nothing of use and are to be masked."""
        if width > self._end:
            self._move(width - (self._end - self._start) + _ROOM_BEFORE, ROOM)
        self._start = self._end - width
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

    def _move(self, before: int, after: int) -> None:
        """Copy the columns into new buffers with so many spare ones on both sides."""
        width = self._end - self._start
        shown = [buffer[:, :, self._start : self._end] for buffer in self._buffers]
        self._buffers = [_buffer(states, before, width + after) for states in shown]
        for buffer, states in zip(self._buffers, shown, strict=True):
            buffer[:, :, before : before + width] = states
        self._start, self._end = before, before + width

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (buffer[:, :, self._start : self._end] for buffer in self._buffers)
        return self.keys, self.values


def _buffer(states: torch.Tensor, before: int, columns: int) -> torch.Tensor:
    """Room for so many columns, after others that may be shown before anything is written into them."""
    buffer = states.new_empty(*states.shape[:2], before + columns, states.shape[3])
    buffer[:, :, :before] = 0  # finite, since what is masked is multiplied by 0 all the same
    return buffer


class WindowCache(Cache):
    """The cache of a model whose layers all attend to past keys and values, to all of them or to a sliding window.

    Layers with a sliding window keep all columns here: the mask determines which of them a token sees.
    """

    def __init__(self, n_layers: int) -> None:
        super().__init__(layers=[WindowLayer() for _ in range(n_layers)])

    def resize(self, width: int) -> None:
        """Keep so many columns on the right, in every layer; new ones on the left are to be masked."""
        for layer in self.layers:
            layer.resize(width)

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
