"""Sequences whose items are made or read on demand, so that a stage of a million rows holds one chunk in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, overload

import pyarrow as pa

from pipeline.runs.tables import Pieces

T = TypeVar("T")


class Lazy(Sequence[T]):
    """``length`` items; item i is ``make(i)``, made again each time it is accessed."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        return self._make(range(self._length)[index])


class Joined(Sequence[T]):
    """The items of one sequence, then those of another."""

    def __init__(self, first: Sequence[T], second: Sequence[T]) -> None:
        self._first = first
        self._second = second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        asked, border = range(len(self))[index], len(self._first)
        if isinstance(asked, int):
            return self._first[asked] if asked < border else self._second[asked - border]
        if asked.step != 1:
            return [self[i] for i in asked]
        beyond = slice(max(asked.start - border, 0), max(asked.stop - border, 0))
        return [*self._first[asked.start : min(asked.stop, border)], *self._second[beyond]]


class TableRows(Sequence[dict[str, Any]]):
    """The rows of a table on disk, with one of its pieces in memory; slices read faster than single rows.

    Args:
        path: path of the table.
        columns: columns to read; all when None.

    Raises:
        RunError: the file is missing or damaged, here or when the damaged piece is read.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._pieces = Pieces(path, columns)
        self._starts = list(accumulate(self._pieces.sizes, initial=0))
        self._held: tuple[int, pa.Table | None] = (-1, None)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for piece in self._pieces:
            yield from piece.to_pylist()

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        asked = range(len(self))[index]
        if isinstance(asked, int):
            return self[asked : asked + 1][0]
        if asked.step != 1:
            return [self[i] for i in asked]
        found: list[dict[str, Any]] = []
        while len(found) < len(asked):
            piece, place = self._find(asked[len(found)])
            found += piece.slice(place, len(asked) - len(found)).to_pylist()
        return found

    def _find(self, index: int) -> tuple[pa.Table, int]:
        """The piece that holds row ``index``, and that row's position in it."""
        number = bisect_right(self._starts, index) - 1
        held, piece = self._held
        if piece is None or held != number:
            piece = self._pieces.read(number)
            self._held = (number, piece)
        return piece, index - self._starts[number]
