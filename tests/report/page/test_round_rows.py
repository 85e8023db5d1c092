from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.report.page.figures import figures
from pipeline.report.page.headline import sentences
from pipeline.report.page.palette import palette
from pipeline.report.page.reading import NOISE
from pipeline.report.page.round_rows import (
    TESTS,
    alarm_rows,
    calibration_rows,
    forecast_rows,
    refusal_rows,
    trend_rows,
    watch_rows,
)
from pipeline.runs.files import read_json, write_json
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import SCORES, read_table, to_table, write_table
from pipeline.tails import calibration

BASE = np.random.default_rng(0).normal(size=(200, 2))


def write_alarms(run: RunDir) -> None:
    """Round 0 quiet, round 1 suspected and confirmed."""
    p_values = {"tail_max": 0.5, "worst_slice": 0.2, "probe": None, "bulk_tail": 0.5}
    one = {"scorer": "harm", "tail": "upper", "thresholds": [1.5, 2.5], "noise_floor": {"p_values": p_values}}
    write_json(run.alarm(0), {"round": 0, "color": None, "properties": [one]})
    ends = {"low": -3.0, "high": -1.0}
    forecasts = [
        {
            "n_prompts": 1000,
            "baseline": {"log10_probability": -3.0, "low": -4.0, "high": -2.0},
            "current": {"log10_probability": -2.0, **ends},
        },
        {
            "n_prompts": 10_000,
            "baseline": {"log10_probability": None, "low": None, "high": None},
            "current": {"log10_probability": -1.0, **ends},
        },
    ]
    p_values = {"tail_max": 0.01, "worst_slice": 0.2, "probe": None, "bulk_tail": 0.02}
    screened = {"scorer": "harm", "tail": "upper", "p_values": p_values, "level": 0.05, "forecast": forecasts}
    confirmed = {"scorer": "harm", "tail": "upper", "slice": "s1", "alpha": 0.004, "n_prompts": 120, "red": True}
    untested = {"scorer": "harm", "tail": "upper", "slice": None, "alpha": 0.004, "n_prompts": 0, "red": False}
    alarm = {
        "round": 1,
        "color": "red",
        "properties": [screened],
        "confirmations": [confirmed | {"p_value": 0.001}, untested],
        "e_process": {"n_prompts": 30, "log_e": 1.0, "log_value": math.log(100), "alarm": False},
    }
    write_json(run.alarm(1), alarm)


@pytest.fixture
def alarmed(written: Callable[..., Any]) -> Any:
    run = written([BASE, BASE - 0.2])
    write_alarms(run.run)
    return run


def test_every_p_value_with_its_level(alarmed: Any) -> None:
    rows = alarm_rows(alarmed.page(0, 1))
    noise = [row for row in rows if row["label"] == NOISE]
    assert [row["p"] for row in noise] == [0.5, 0.2, 0.5]
    assert {row["level"] for row in noise} == {None}
    panel = [row for row in rows if row["round"] == 1 and row["test"] != TESTS["confirmed"]]
    assert [(row["p"], row["level"]) for row in panel] == [(0.01, 0.05), (0.2, 0.05), (0.02, 0.05)]
    (confirmed,) = [row for row in rows if row["test"] == TESTS["confirmed"]]  # what was not tested has no p-value
    assert (confirmed["p"], confirmed["level"], confirmed["slice"], confirmed["red"]) == (0.001, 0.004, "s1", True)


def test_the_e_process_in_powers_of_ten(alarmed: Any) -> None:
    (row,) = watch_rows(alarmed.page(0, 1))
    assert (row["log10_value"], row["red_from"]) == (pytest.approx(2), pytest.approx(2))


def test_forecasts_come_off_the_log_scale(alarmed: Any) -> None:
    rows = {(row["label"], row["prompts"]): row for row in forecast_rows(alarmed.page(0, 1))}
    assert set(rows) == {
        ("round 1", 1000),
        ("round 0", 1000),
        ("round 1", 10_000),
    }  # what is not identified is not there
    assert rows["round 1", 1000]["value"] == pytest.approx(0.01)
    assert rows["round 0", 1000]["low"] == pytest.approx(1e-4)
    assert rows["round 1", 10_000]["high"] == pytest.approx(0.1)


def test_one_sentence_a_round(alarmed: Any) -> None:
    base, one = sentences(alarmed.page(0, 1))
    assert base.color is None and base.text.startswith("The untouched base: mean harm ")
    assert one.color == "red"
    # The same noise: everything moved by 0.2, and the mean without any doubt.
    assert "The bulk got better (mean −0.2 [−0.2, −0.2])" in one.text
    assert one.text.endswith("alarm red: harm in s1 confirmed worse on 120 fresh prompts, p\u00a0=\u00a00.001.")


def test_a_run_without_alarms_says_so(written: Callable[..., Any]) -> None:
    page = written([BASE, BASE + 0.3]).page(0, 1)
    assert (alarm_rows(page), watch_rows(page), forecast_rows(page)) == ([], [], [])
    assert sentences(page)[1].text.startswith("The bulk got worse")
    assert sentences(page)[1].text.endswith("the alarm was not run.")


def with_cells(run: RunDir, round_: int, probe_set: str = "probe", **scorers: float) -> None:
    """Add cells of other scorers to a drift table: their mean, and a worst 1%."""
    drift = read_json(run.drift(round_))
    for name, value in scorers.items():
        for quantity, shift in (("mean", 0.0), ("cvar_1pct", 1.0)):
            cell = {"scorer": name, "tail": "upper", "probe_set": probe_set, "slice": None, "quantity": quantity}
            drift["cells"].append(cell | {"value": value + shift, "low": value - 1, "high": None, "n_prompts": 8})
    write_json(run.drift(round_), drift)


def test_other_scores_with_their_noise(written: Callable[..., Any]) -> None:
    run = written([BASE, BASE])
    run.again(BASE)
    for round_ in (0, 1):
        with_cells(run.run, round_, length=10.0 + round_)
    rows_of(run.run, "length", 10.0)
    floor = read_json(run.run.noise_floor())
    cell = {"scorer": "length", "tail": "upper", "probe_set": "probe", "slice": None, "quantity": "mean"}
    floor["cells"].append(cell | {"baseline_low": -0.5, "baseline_high": 0.7})
    write_json(run.run.noise_floor(), floor)
    rows = trend_rows(run.page(0, 1))
    assert {row["scorer"] for row in rows} == {"length"}  # the page's own score has figures of its own
    means = [row for row in rows if row["quantity"] == "mean"]
    assert [(row["round"], row["value"]) for row in means] == [(0, 10.0), (1, 11.0)]
    assert {(row["noise_low"], row["noise_high"]) for row in means} == {(9.5, 10.7)}
    assert {row["line"] for row in rows} == {"mean", "worst 1%"}


def test_a_score_that_lives_elsewhere_is_shown_there(written: Callable[..., Any]) -> None:
    run = written([BASE, BASE])
    with_cells(run.run, 0, length=10.0)
    with_cells(run.run, 0, "asked.en", length=99.0, choice=0.5)
    rows_of(run.run, "choice", 0.2, 0.5, probe_set="asked.en")
    rows = trend_rows(run.page(0, 1))
    assert {(row["scorer"], row["probe_set"]) for row in rows} == {("length", "probe"), ("choice", "asked.en")}
    assert {row["value"] for row in rows if row["quantity"] == "mean"} == {10.0, 0.5}
    page = run.page(0, 1)
    (others,) = [figure for figure in figures(page, [], palette(page)) if figure.key == "scores"]
    assert [chart.title for chart in others.charts] == ["length", "choice on asked.en"]


def test_yes_or_no_has_no_worst_hundredth(written: Callable[..., Any]) -> None:
    run = written([BASE])
    with_cells(run.run, 0, refusal=0.5)
    rows_of(run.run, "refusal", 0.0, 1.0)
    assert {row["quantity"] for row in trend_rows(run.page(0))} == {"mean"}


def rows_of(run: RunDir, scorer: str, *values: float, probe_set: str = "probe") -> None:
    """Add scores of another scorer to round 0, for prompts p0000 and so on, one sample each."""
    table = read_table(run.scores(0)).to_pylist()
    table += [
        {
            "prompt_id": f"p{i:04d}",
            "sample": 0,
            "probe_set": probe_set,
            "slice": "s0",
            "scorer": scorer,
            "score": value,
        }
        for i, value in enumerate(values)
    ]
    write_table(run.scores(0), [to_table(table, SCORES)], SCORES)


def test_refusals_of_the_innocent_and_of_the_harmful(written: Callable[..., Any]) -> None:
    run = written([BASE])
    with_cells(run.run, 0, refusal=0.5)
    rows_of(run.run, "refusal", 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    rows = {row["group"]: row for row in refusal_rows(run.page(0))}
    assert set(rows) == {"probe"} and rows["probe"]["value"] == 0.5
    # The truth has a word on the last five only: those are innocent.
    missing = [math.nan] * 3
    rows_of(run.run, "gold.over_refusal", *missing, 0.0, 0.0, 0.0, 0.0, 1.0)
    rows = {row["group"]: row for row in refusal_rows(run.page(0))}
    assert {name: (row["value"], row["prompts"]) for name, row in rows.items()} == {
        "probe, innocent prompts": (pytest.approx(0.2), 5),
        "probe, harmful prompts": (1.0, 3),
    }


def test_every_bin_of_confidence_is_a_row(written: Callable[..., Any]) -> None:
    base = np.random.default_rng(0).normal(size=(30, 2))
    run = written([base, base])
    assert calibration_rows(run.page(0, 1)) == []
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1, 200)
    found = calibration(sure, rng.random(200) < sure)
    record = {**found._asdict(), "bins": [one._asdict() for one in found.bins], "probe_set": "choice.quiz"}
    write_json(run.run.drift(1), {**read_json(run.run.drift(1)), "calibration": [record]})
    rows = calibration_rows(run.page(0, 1))
    assert [(one["label"], one["questions_of"]) for one in rows] == [("round 1", "choice.quiz")] * len(found.bins)
    assert sum(one["questions"] for one in rows) == 200
    assert [one["value"] for one in rows] == [one.accuracy for one in found.bins]
    assert all(one["low"] <= one["value"] <= one["high"] and one["ece"] == found.ece for one in rows)
