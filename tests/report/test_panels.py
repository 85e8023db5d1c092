from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RunError
from pipeline.report.panels import read_panel, to_panel
from pipeline.runs.tables import SCORES, to_table, write_table

NAN = float("nan")


def row(prompt: str, sample: int, score: float | None, slice_: str = "s", **labels: Any) -> dict[str, Any]:
    usual = {"probe_set": "main", "scorer": "harm", "reason": None if score is not None else "no tokens"}
    return {"prompt_id": prompt, "sample": sample, "slice": slice_, "score": score, **usual, **labels}


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text("abcdef0123456789", min_size=1, max_size=8),
        st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_rows_in_any_order_give_the_same_array(panel: dict[str, list[float | None]], shuffle: random.Random) -> None:
    rows = [row(id_, k, score, f"of {id_}") for id_, scores in panel.items() for k, score in enumerate(scores)]
    shuffle.shuffle(rows)
    found = to_panel(to_table(rows, SCORES))

    widest = max(map(len, panel.values()))
    assert found.prompt_ids == sorted(panel)
    assert found.slices == [f"of {id_}" for id_ in sorted(panel)]
    expected = [panel[id_] + [None] * (widest - len(panel[id_])) for id_ in sorted(panel)]
    np.testing.assert_array_equal(found.scores, np.array(expected, dtype=float))


def test_missing_scores_and_missing_rows_are_nan() -> None:
    found = to_panel(to_table([row("b", 2, 5.0), row("a", 1, None), row("a", 0, 1.0)], SCORES))
    assert found.prompt_ids == ["a", "b"]
    np.testing.assert_array_equal(found.scores, [[1.0, NAN, NAN], [NAN, NAN, 5.0]])


def test_slices_follow_their_prompts() -> None:
    rows = [row("c", 0, 1.0, "cold"), row("a", 0, 2.0, "warm"), row("c", 1, 3.0, "cold"), row("b", 0, 4.0, "warm")]
    assert to_panel(to_table(rows, SCORES)).slices == ["warm", "warm", "cold"]


def test_no_rows_are_no_prompts() -> None:
    found = to_panel(to_table([], SCORES))
    assert (found.prompt_ids, found.slices, len(found.scores)) == ([], [], 0)


def test_one_column_of_one_probe_set_is_read(tmp_path: Path) -> None:
    rows = [
        row("a", 0, 1.0),
        row("a", 0, 2.0, probe_set="other"),
        row("a", 0, 3.0, scorer="length"),
        row("z", 0, 4.0, probe_set="other", scorer="length"),
    ]
    write_table(tmp_path / "scores.parquet", [to_table(rows, SCORES)], SCORES)
    for column, probe_set, ids, score in [
        ("harm", "main", ["a"], 1.0),
        ("harm", "other", ["a"], 2.0),
        ("length", "main", ["a"], 3.0),
        ("length", "other", ["z"], 4.0),
    ]:
        found = read_panel(tmp_path / "scores.parquet", column, probe_set)
        assert (found.prompt_ids, found.scores.tolist()) == (ids, [[score]])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"scores\.parquet: missing"):
        read_panel(tmp_path / "scores.parquet", "harm", "main")
