from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RunError
from pipeline.runs.summary import count_values, stage_facts
from pipeline.runs.tables import RESPONSES, SCORES, Pieces, read_table, to_table, write_table


def response(i: int, drop_reason: str | None = None) -> dict[str, object]:
    return {
        "prompt_id": f"p{i}",
        "sample": 0,
        "round": 1,
        "seed": 2**63 - 1 - i,
        "model": "m",
        "adapter_sha256": None,
        "finish_reason": "stop",
        "error": None,
        "prompt": [{"role": "user", "content": "hi"}],
        "slice": "s",
        "response": "é",
        "drop_reason": drop_reason,
        "prompt_tokens": 3,
        "new_tokens": i,
    }


def test_rows_come_back_with_exactly_the_schema(tmp_path: Path) -> None:
    rows = [response(i) for i in range(5)]
    path = tmp_path / "t.parquet"
    pieces = (to_table(rows[a:b], RESPONSES) for a, b in ((0, 2), (2, 2), (2, 5)))
    assert write_table(path, pieces, RESPONSES) == 5
    table = read_table(path)
    assert table.schema == RESPONSES
    assert table.to_pylist() == rows
    assert read_table(path, ["seed"]).column_names == ["seed"]


def test_small_pieces_are_joined_and_large_ones_are_not_cut(tmp_path: Path) -> None:
    path, sizes = tmp_path / "t.parquet", [3, 0, 1_100_000, 8191, 0, 1, 2]
    schema = pa.schema([("i", pa.int32())])
    numbers = [pa.table({"i": pa.array(range(size), pa.int32())}) for size in sizes]
    assert write_table(path, numbers, schema) == sum(sizes)
    pieces = Pieces(path)
    assert pieces.sizes == [1_100_003, 8192, 2], "more rows than Parquet puts into a row group by default"
    assert [table.num_rows for table in pieces] == pieces.sizes
    assert pieces.read(2)["i"].to_pylist() == [0, 1]
    assert read_table(path)["i"].to_pylist() == [i for size in sizes for i in range(size)]


def test_an_empty_table_has_the_schema(tmp_path: Path) -> None:
    assert write_table(tmp_path / "t.parquet", [], SCORES) == 0
    assert read_table(tmp_path / "t.parquet").schema == SCORES


def test_the_schema_is_enforced(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_table([response(0) | {"new_tokens": "three"}], RESPONSES)
    with pytest.raises(ValueError, match="schema"):
        write_table(tmp_path / "t.parquet", [pa.table({"other": [1]})], SCORES)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_no_column_is_left_out_and_a_missing_one_is_null() -> None:
    row = to_table([response(0) | {"token_ids": [1, 2]}], RESPONSES).to_pylist()[0]
    assert "token_ids" not in row
    assert to_table([{"prompt_id": "p"}], SCORES).to_pylist()[0]["score"] is None


def test_a_missing_table_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"t\.parquet: missing; run the stage"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("damage", ["cut", "head", "empty", "middle"])
def test_a_damaged_table_is_a_run_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, [to_table([response(i) for i in range(500)], RESPONSES)], RESPONSES)
    whole = path.read_bytes()
    harmed = {
        "cut": whole[: len(whole) // 2],
        "head": b"JUNK" + whole[4:-4] + b"JUNK",
        "empty": b"",
        "middle": whole[:20] + b"\xff" * 400 + whole[420:],
    }[damage]
    path.write_bytes(harmed)
    with pytest.raises(RunError, match=r"t\.parquet: damaged"):
        read_table(path)


def test_facts_add_up(tmp_path: Path) -> None:
    reasons = [None, "empty", None, "loop", "empty", None]
    rows = [response(i, reason) for i, reason in enumerate(reasons)]
    write_table(tmp_path / "a.parquet", [to_table(rows, RESPONSES)], RESPONSES)
    write_table(tmp_path / "b.parquet", [to_table(rows[:2], RESPONSES)], RESPONSES)
    assert stage_facts(tmp_path, ["a.parquet", "b.parquet"]) == {
        "rows": {"a.parquet": 6, "b.parquet": 2},
        "dropped": {"a.parquet": {"empty": 2, "loop": 1}, "b.parquet": {"empty": 1}},
        "tokens": {"prompt": 24, "new": 15 + 1},
    }
    assert list(count_values(tmp_path / "a.parquet", "drop_reason")) == ["empty", "loop"], "most frequent first"


def test_rows_that_are_trained_on_anyway_are_not_dropped(tmp_path: Path) -> None:
    rows = [response(i, reason) for i, reason in enumerate([None, "cut_off", "loop", "cut_off"])]
    write_table(tmp_path / "a.parquet", [to_table(rows, RESPONSES)], RESPONSES)
    facts = stage_facts(tmp_path, ["a.parquet"], keep=["cut_off"])
    assert (facts["dropped"], facts["kept"]) == ({"a.parquet": {"loop": 1}}, {"a.parquet": {"cut_off": 2}})


def test_facts_of_no_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", [], RESPONSES)
    facts = stage_facts(tmp_path, ["a.parquet"])
    assert facts == {"rows": {"a.parquet": 0}, "dropped": {"a.parquet": {}}, "tokens": {"prompt": 0, "new": 0}}


def test_a_table_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    rows = to_table([response(i) for i in range(50)], RESPONSES)
    for name in ("a", "b"):
        write_table(tmp_path / name, [rows.slice(0, 20), rows.slice(20)], RESPONSES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pq.read_schema(tmp_path / "a").metadata is None
