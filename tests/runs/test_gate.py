from __future__ import annotations

from typing import Any, Literal

import pytest

from pipeline.runs.gate import Choice, choose, ends_run, guard_values

OnAlarm = Literal["warn", "stop", "rollback"]

GREEN = {0: None, 1: "green", 2: "amber", 3: "green"}
RED_AT_2 = {0: None, 1: "green", 2: "red", 3: "green"}
RED_AT_1 = {0: None, 1: "red"}
GUARD = {0: 5.0, 1: 2.0, 2: 1.0, 3: 3.0}


@pytest.mark.parametrize("color", [None, "green", "not identified", "amber"])
@pytest.mark.parametrize("on_alarm", ["warn", "stop", "rollback"])
def test_nothing_but_red_ends_a_run(on_alarm: OnAlarm, color: str | None) -> None:
    assert not ends_run(on_alarm, color)


@pytest.mark.parametrize(("on_alarm", "ends"), [("warn", False), ("stop", True), ("rollback", True)])
def test_red_ends_a_run_that_is_told_so(on_alarm: OnAlarm, ends: bool) -> None:
    assert ends_run(on_alarm, "red") is ends


@pytest.mark.parametrize(
    ("colors", "on_alarm", "guard", "round_"),
    [
        # `last`: the last round, or the last before the first red one.
        (GREEN, "warn", None, 3),
        (GREEN, "stop", None, 3),
        (GREEN, "rollback", None, 3),
        (RED_AT_2, "warn", None, 3),
        (RED_AT_2, "stop", None, 3),
        (RED_AT_2, "rollback", None, 1),
        (RED_AT_1, "warn", None, 1),
        (RED_AT_1, "stop", None, 1),
        (RED_AT_1, "rollback", None, 0),
        # `best`: the lowest guard, among the same rounds.
        (GREEN, "warn", GUARD, 2),
        (GREEN, "stop", GUARD, 2),
        (GREEN, "rollback", GUARD, 2),
        (RED_AT_2, "warn", GUARD, 2),
        (RED_AT_2, "stop", GUARD, 2),
        (RED_AT_2, "rollback", GUARD, 1),
        (RED_AT_1, "warn", GUARD, 1),
        (RED_AT_1, "rollback", GUARD, 0),
        # Round 0 is a candidate like any other.
        (GREEN, "warn", GUARD | {0: 0.5}, 0),
        ({0: None}, "rollback", None, 0),
        ({0: None}, "warn", GUARD, 0),
    ],
)
def test_the_round_that_is_recommended(
    colors: dict[int, str | None], on_alarm: OnAlarm, guard: dict[int, float] | None, round_: int
) -> None:
    assert choose(colors, on_alarm, guard).round == round_


def test_why_is_said() -> None:
    assert choose(GREEN, "warn", None) == Choice(3, "the last round")
    assert choose(RED_AT_1, "rollback", None) == Choice(0, "rolled back: round 1 raised a red alarm")
    assert choose(GREEN, "warn", GUARD) == Choice(2, "the best by the guard: 1")
    both = choose(RED_AT_2, "rollback", GUARD)
    assert both == Choice(1, "rolled back: round 2 raised a red alarm; the best by the guard: 2")
    assert "rolled back" not in choose(RED_AT_2, "stop", None).why


def test_the_first_of_two_red_rounds_decides() -> None:
    colors = {0: None, 1: "green", 2: "red", 3: "red"}
    assert choose(colors, "rollback", None) == Choice(1, "rolled back: round 2 raised a red alarm")


def test_the_earliest_of_equals_is_chosen() -> None:
    assert choose(GREEN, "warn", {3: 1.0, 2: 1.0, 1: 1.0, 0: 4.0}).round == 1


def test_the_order_of_the_rounds_is_no_matter() -> None:
    colors = dict(reversed(list(RED_AT_2.items())))
    assert choose(colors, "rollback", None).round == 1
    assert choose(colors, "warn", None).round == 3


def test_rounds_without_a_guard_are_not_the_best() -> None:
    assert choose(GREEN, "warn", {0: 5.0, 1: 2.0}).round == 1


def test_without_any_guard_it_is_the_last_round() -> None:
    assert choose(GREEN, "warn", {}) == Choice(3, "the last round: the guard is not identified in any")
    assert choose(RED_AT_2, "rollback", {2: 1.0}) == Choice(1, "rolled back: round 2 raised a red alarm")


# -- the guard -----------------------------------------------------------------------------------------------


def cell(value: float | None, **labels: Any) -> dict[str, Any]:
    usual = {"scorer": "harm", "tail": "upper", "probe_set": "main", "slice": None, "quantity": "cvar_1pct"}
    return {**usual, **labels, "value": value}


def drift(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": [cell(99.0, quantity="mean"), *cells]}


def test_the_quantity_of_each_round() -> None:
    drifts = {0: drift(cell(3.0)), 1: drift(cell(2.5)), 2: drift(cell(0.0))}
    assert guard_values(drifts, "harm", "cvar_1pct").values == {0: 3.0, 1: 2.5, 2: 0.0}
    assert guard_values(drifts, "harm", "mean").values == {0: 99.0, 1: 99.0, 2: 99.0}


def test_at_a_lower_tail_high_values_are_the_good_ones() -> None:
    drifts = {0: drift(cell(0.7, tail="lower")), 1: drift(cell(0.9, tail="lower"))}
    values, tail = guard_values(drifts, "harm", "cvar_1pct")
    assert (values, tail) == ({0: 0.7, 1: 0.9}, "lower")
    chosen = choose({0: None, 1: "green"}, "warn", values, low_is_bad=True)
    assert chosen == Choice(1, "the best by the guard: 0.9")
    assert choose({0: None, 1: "green"}, "warn", values).round == 0


def test_of_a_score_with_two_bad_ends_one_end_counts_in_every_round() -> None:
    drifts = {0: drift(cell(0.7, tail="lower"), cell(3.0)), 1: drift(cell(0.9, tail="lower"), cell(None))}
    assert guard_values(drifts, "harm", "cvar_1pct") == ({0: 3.0}, "upper")


def test_other_probe_sets_slices_and_scorers_are_not_it() -> None:
    others = [cell(1.0, probe_set="other"), cell(1.0, slice="plague"), cell(1.0, scorer="length")]
    assert guard_values({0: drift(*others)}, "harm", "cvar_1pct").values == {}
    assert guard_values({0: drift(*others, cell(3.0))}, "harm", "cvar_1pct").values == {0: 3.0}
    assert guard_values({0: drift(*others, cell(3.0))}, "length", "cvar_1pct").values == {0: 1.0}


def test_a_score_of_questions_is_taken_from_its_own_set() -> None:
    asked = [cell(0.4, scorer="choice", probe_set="choice.a"), cell(0.1, scorer="choice", probe_set="choice.b")]
    assert guard_values({0: drift(*asked)}, "choice", "cvar_1pct").values == {0: 0.4}
    assert guard_values({0: drift(*asked)}, "absent", "cvar_1pct").values == {}


def test_a_score_of_a_later_probe_set_is_taken_from_there_in_every_round() -> None:
    def of(panel: float | None, red_team: float) -> dict[str, Any]:
        return drift(cell(panel, scorer="under_refusal"), cell(red_team, scorer="under_refusal", probe_set="red_team"))

    assert guard_values({0: of(None, 0.7), 1: of(None, 0.5)}, "under_refusal", "cvar_1pct").values == {0: 0.7, 1: 0.5}
    first = guard_values({0: of(None, 0.7), 1: of(0.9, 0.5)}, "under_refusal", "cvar_1pct").values
    assert first == {1: 0.9}, "one probe set for all rounds"


def test_a_round_without_a_value_is_left_out() -> None:
    assert guard_values({0: drift(cell(3.0)), 1: drift(cell(None))}, "harm", "cvar_1pct").values == {0: 3.0}


def test_of_a_score_with_two_bad_ends_the_upper_one_counts() -> None:
    two = drift(cell(300.0), cell(2.0, tail="lower"))
    assert guard_values({0: two}, "harm", "cvar_1pct").values == {0: 300.0}
