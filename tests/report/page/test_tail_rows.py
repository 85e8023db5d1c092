from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.report.checkpoints import Checkpoint
from pipeline.report.page.reading import NOISE, Page
from pipeline.report.page.tail_rows import curve_rows, ellipse_rows, plane_rows, shift_rows, slice_rows


def panel(seed: int, shift: float = 0.0, n: int = 400, k: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, k)) + shift


def test_the_plane_counts_in_standard_deviations(written: Callable[..., Any]) -> None:
    base = panel(0)
    run = written([base, base + 0.5])
    run.again(panel(0) + 0.01)
    rows = {row["label"]: row for row in plane_rows(run.page(0, 1))}
    assert list(rows) == ["round 0", NOISE, "round 1"]
    assert (rows["round 0"]["bulk"], rows["round 0"]["tail"]) == (0, 0)
    # A shift of everything moves CVaR by itself; the bulk by less, for it is what stays within the threshold.
    assert rows["round 1"]["tail"] == pytest.approx(0.5 / base.std())
    assert 0 < rows["round 1"]["bulk"] < 0.5 / base.std()
    assert rows["round 1"]["p_bulk_better"] > 0.99
    assert rows[NOISE]["tail"] == pytest.approx(0.01 / base.std())


def test_the_outlines_lie_about_their_points(written: Callable[..., Any]) -> None:
    run = written([panel(0), panel(1, 0.5)])
    page = run.page(0, 1)
    point = plane_rows(page)[-1]
    outline = np.array([[row["bulk"], row["tail"]] for row in ellipse_rows(page) if row["label"] == "round 1"])
    middle = (outline.min(axis=0) + outline.max(axis=0)) / 2
    assert middle == pytest.approx([point["bulk"], point["tail"]], abs=1e-2)
    assert (np.ptp(outline, axis=0) > 0).all()


def test_a_tail_that_is_not_identified_is_no_point(written: Callable[..., Any]) -> None:
    base = panel(0, n=150)
    base[:2] += 50  # the worst 1% of 600 samples are all of two prompts
    page = written([base, base - 0.5]).page(0, 1)
    row = plane_rows(page)[-1]
    assert row["tail"] is None and row["why"] == "prompts in the worst 1%: 2, at least 3 are needed"
    assert ellipse_rows(page) == []


def test_curves_count_what_lies_beyond(written: Callable[..., Any]) -> None:
    # 200 prompts with one sample each: 1, 2, ... 200.
    run = written([np.arange(1.0, 201)[:, None]])
    rows = {row["x"]: row for row in curve_rows(run.page(0))}
    assert rows[200.0]["value"] == 0 and rows[200.0]["high"] > 0
    assert rows[199.0]["value"] == pytest.approx(1 / 200)
    assert rows[199.0]["samples_beyond"] == 1
    for row in rows.values():
        assert row["value"] == pytest.approx((200 - row["x"]) / 200)
        assert row["low"] <= row["value"] <= row["high"]
    assert len(rows) <= 102


def test_the_shift_function_finds_a_shift_of_the_tail_alone(written: Callable[..., Any]) -> None:
    base = panel(3, n=1000)
    moved = np.where(base > np.quantile(base, 0.95), base + 2, base)
    run = written([base, moved])
    run.again(base)
    rows = {(row["label"], row["share"]): row for row in shift_rows(run.page(0, 1))}
    assert rows["round 1", 0.5]["value"] == 0
    assert rows["round 1", 0.01]["value"] == pytest.approx(2)
    assert rows["round 1", 0.01]["low"] > 0
    assert rows[NOISE, 0.01]["value"] == 0
    assert min(share for _, share in rows) == 0.001  # 4,000 samples reach that far, and no further


def test_slices_are_compared_each_with_itself(written: Callable[..., Any]) -> None:
    base = panel(4, n=300)
    moved = base.copy()
    moved[1::3] += 1.5  # the prompts of slice s1
    run = written([base, moved], slices=3)
    rows = {row["slice"]: row for row in slice_rows(run.page(0, 1))}
    assert {name: row["prompts"] for name, row in rows.items()} == {"s0": 100, "s1": 100, "s2": 100}
    assert rows["s1"]["value"] == pytest.approx(1.5) and rows["s1"]["clear"]
    assert rows["s0"]["value"] == 0 and not rows["s0"]["clear"]
    assert slice_rows(written([base, moved], "unsliced").page(0, 1)) == []


def test_two_runs_are_each_compared_with_their_own_base(written: Callable[..., Any]) -> None:
    one, two = written([panel(5), panel(5) + 1], "one"), written([panel(6) + 9, panel(6) + 9], "two")
    page = Page([Checkpoint(one.run, 1), Checkpoint(two.run, 1)])
    rows = {row["label"]: row for row in plane_rows(page)}
    assert list(rows) == ["one:0", "one:1", "two:0", "two:1"]
    assert rows["one:1"]["tail"] > 0.5
    assert rows["two:1"]["tail"] == pytest.approx(0)


def test_runs_of_one_name_are_told_apart_by_their_folders(written: Callable[..., Any]) -> None:
    runs = [written([panel(7)], name) for name in ("a/run", "b/run")]
    page = Page([Checkpoint(run.run, 0) for run in runs])
    assert [shown.label for shown in page.shown] == ["a/run:0", "b/run:0"]
