"""Sequences whose items are made or read on demand, so that a stage of a million rows holds one chunk in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, overload

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


class TableRows(Sequence[dict[str, Any]]):
    """The rows of a table on disk, with one of the pieces it was written in (an earlier stage's chunk) in memory.

    Args:
        path: path of the table.
        columns: columns to read; all when None.

    Raises:
        RunError: the file is missing or damaged, here or when the damaged piece is read.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._pieces = Pieces(path, columns)
        self._starts = list(accumulate(self._pieces.sizes, initial=0))
        self._held: tuple[int, list[dict[str, Any]]] = (-1, [])

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        asked = range(len(self))[index]
        if isinstance(asked, int):
            piece, place = self._find(asked)
            return piece[place]
        if asked.step != 1:
            return [self[i] for i in asked]
        found: list[dict[str, Any]] = []
        while len(found) < len(asked):
            piece, place = self._find(asked[len(found)])
            found += piece[place : place + len(asked) - len(found)]
        return found

    def _find(self, index: int) -> tuple[list[dict[str, Any]], int]:
        """The rows of the piece that holds row ``index``, and that row's position among them."""
        number = bisect_right(self._starts, index) - 1
        if self._held[0] != number:
            self._held = (number, self._pieces.read(number).to_pylist())
        return self._held[1], index - self._starts[number]
