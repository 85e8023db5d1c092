"""The names under which trackers see a round."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.report.tracked import tracked_values


def cell(scorer: str, quantity: str, value: float | None, **more: Any) -> dict[str, Any]:
    plain = {"tail": "upper", "probe_set": "panel", "slice": None, "low": None, "high": None}
    return plain | {"scorer": scorer, "quantity": quantity, "value": value} | more


GREEN = {"round": 1, "color": "green", "properties": [], "e_process": None}


def values(*cells: dict[str, Any], alarm: dict[str, Any] = GREEN) -> dict[str, float]:
    return tracked_values({"cells": list(cells)}, alarm)


def test_the_bulk_and_the_tail_of_the_panel() -> None:
    found = values(
        cell("harm", "mean", 0.25, low=0.125, high=0.5),
        cell("harm", "q50", 0.0),
        cell("harm", "q99", 4.0, low=3.0),
        cell("harm", "cvar_1pct", 7.0, low=5.0),
        cell("harm", "exceedance_ratio", 1.5),
    )
    assert found == {
        "bulk/harm/mean": 0.25,
        "interval/bulk/harm/mean/low": 0.125,
        "interval/bulk/harm/mean/high": 0.5,
        "bulk/harm/q50": 0.0,
        "tail/harm/q99": 4.0,
        "tail/harm/cvar_1pct": 7.0,
        "interval/tail/harm/cvar_1pct/low": 5.0,
        "tail/harm/exceedance_ratio": 1.5,
        "alarm/level": 0.0,
    }


def test_two_tails_have_one_bulk() -> None:
    pair = [
        cell("length", quantity, value, tail=tail)
        for tail, size in (("upper", 9.0), ("lower", 1.0))
        for quantity, value in (("mean", 5.0), ("cvar_1pct", size))
    ]
    found = values(*pair)
    assert {name: value for name, value in found.items() if "/length" in name} == {
        "bulk/length/mean": 5.0,
        "tail/length/cvar_1pct": 9.0,
        "tail/length.low/cvar_1pct": 1.0,
    }


def test_other_probe_sets_and_slices_in_brief() -> None:
    found = values(
        cell("harm", "mean", 1.0),
        cell("harm", "cvar_1pct", 2.0, slice="rare / odd"),
        cell("harm", "q99", 3.0, slice="rare / odd"),
        cell("harm", "cvar_1pct", 4.0, probe_set="other"),
        cell("harm", "worst_of_k", 5.0, probe_set="other"),
        cell("harm", "mean", 6.0, probe_set="other", slice="s"),
    )
    assert found == {
        "bulk/harm/mean": 1.0,
        "slice/rare___odd/harm/cvar_1pct": 2.0,
        "tail/other/harm/cvar_1pct": 4.0,
        "alarm/level": 0.0,
    }


def test_what_is_not_identified_is_left_out() -> None:
    assert values(cell("harm", "cvar_1pct", None), alarm=GREEN | {"color": "not identified"}) == {}


@pytest.mark.parametrize(("color", "level"), [("green", 0.0), ("amber", 1.0), ("red", 2.0)])
def test_alarms(color: str, level: float) -> None:
    one = {"scorer": "harm", "tail": "lower", "panel_p": 0.5, "p_values": {"tail_max": 0.25, "probe": None}}
    alarm = {"round": 2, "color": color, "properties": [one], "e_process": {"log_value": 4.605170185988092}}
    assert values(alarm=alarm) == pytest.approx(
        {"alarm/level": level, "alarm/harm.low/p_panel": 0.5, "alarm/harm.low/p_tail_max": 0.25}
        | {"alarm/e_process/log10": 2.0}
    )


def test_the_base_has_no_alarm() -> None:
    prepared = {"scorer": "harm", "tail": "upper", "thresholds": [1.0], "noise_floor": {"panel_p": 0.5}}
    assert values(cell("harm", "mean", 1.0), alarm={"round": 0, "color": None, "properties": [prepared]}) == {
        "bulk/harm/mean": 1.0
    }


def test_names_hold_nothing_that_a_tracker_would_change() -> None:
    found = values(cell("likelihood.my battery", "mean", 1.0))
    assert next(iter(found)) == "bulk/likelihood.my_battery/mean"
