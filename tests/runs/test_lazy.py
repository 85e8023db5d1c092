from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RunError
from pipeline.runs import tables
from pipeline.runs.lazy import Joined, Lazy, TableRows
from pipeline.runs.tables import read_table, to_table, write_table

SCHEMA = pa.schema([("i", pa.int64()), ("said", pa.list_(pa.struct([("role", pa.string())])))])


def write(path: Path, sizes: list[int]) -> list[dict[str, object]]:
    rows = [{"i": i, "said": [{"role": f"r{i}"}] if i % 3 else None} for i in range(sum(sizes))]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    with patch.object(tables, "ROWS_TOGETHER", 1):  # or these few would all be read at once
        write_table(path, (to_table(rows[a : a + n], SCHEMA) for a, n in zip(starts, sizes, strict=True)), SCHEMA)
    return rows


@given(st.integers(0, 12), st.slices(12))
def test_a_lazy_sequence_has_the_slices_of_a_list(length: int, part: slice) -> None:
    assert Lazy(length, lambda i: i * i)[part] == [i * i for i in range(length)][part]


@given(st.integers(0, 5), st.integers(-8, 8))
def test_a_lazy_sequence_has_the_items_of_a_list(length: int, index: int) -> None:
    items, made = Lazy(length, str), [str(i) for i in range(length)]
    assert len(items) == length and list(items) == made
    if -length <= index < length:
        assert items[index] == made[index]
    else:
        with pytest.raises(IndexError):
            items[index]


@given(st.lists(st.integers(), max_size=6), st.lists(st.integers(), max_size=6), st.slices(14), st.integers(-14, 14))
def test_joined_sequences_are_one_list(first: list[int], second: list[int], part: slice, index: int) -> None:
    joined, expected = Joined(first, second), first + second
    assert len(joined) == len(expected) and list(joined) == expected and joined[part] == expected[part]
    if -len(expected) <= index < len(expected):
        assert joined[index] == expected[index]
    else:
        with pytest.raises(IndexError):
            joined[index]


def test_items_are_made_when_they_are_asked_for() -> None:
    made: list[int] = []
    items = Lazy(1_000_000, lambda i: made.append(i) or i)
    assert items[5:8] == [5, 6, 7] and items[-1] == 999_999
    assert made == [5, 6, 7, 999_999]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), max_size=6), st.randoms())
def test_rows_are_those_of_the_whole_table_in_whatever_order(sizes: list[int], random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        expected = write(path, sizes)
        rows = TableRows(path)
        assert list(rows) == rows[:] == expected == read_table(path).to_pylist()
        order = random.sample(range(len(expected)), len(expected))
        assert [rows[i] for i in order] == [expected[i] for i in order]
        for _ in range(5):
            start, stop = random.randint(-25, 25), random.randint(-25, 25)
            for part in (slice(start, stop), slice(stop, start, random.choice([-2, -1, 2, 3]))):
                assert rows[part] == expected[part]
        assert list(TableRows(path, ["i"])) == [{"i": row["i"]} for row in expected]


def test_a_missing_table_and_a_damaged_piece_are_run_errors(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(RunError, match=r"t\.parquet: missing; run the stage"):
        TableRows(path)
    write(path, [500, 500])
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + b"\xff" * 400 + whole[420:])
    rows = TableRows(path)
    assert rows[999]["i"] == 999, "the second piece is whole"
    with pytest.raises(RunError, match=r"t\.parquet: damaged"):
        rows[0]
