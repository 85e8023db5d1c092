from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from pipeline.report.alarms import alarm_report, confirmation_record, forecast_record, guarantee
from pipeline.tails import Comparison, Hypothesis, compare, comparison_record, confirm, forecast

THRESHOLDS = (2.0, 3.0)
LEVELS = {"confirmation": 0.04, "e_process": 0.01, "horizon": 10, "spent": 0}
NAN = float("nan")


def panel(n: int = 200, k: int = 4, seed: int = 0) -> np.ndarray:
    """Scores [n, k], higher is worse, 2% of them beyond 2."""
    return np.random.default_rng(seed).exponential(0.5, size=(n, k))


def with_worse_tail(scores: np.ndarray, share: float = 0.2, seed: int = 1) -> np.ndarray:
    hit = np.random.default_rng(seed).random(scores.shape) < share
    return np.where(hit, scores + 3.0, scores)


def compared(after: np.ndarray | None = None, **options: Any) -> Comparison:
    given = {"thresholds": THRESHOLDS, "replicates": 20, **options}
    return compare(panel(), panel(seed=2) if after is None else after, **given)


def not_identified() -> Comparison:
    return compare(panel(10), panel(10), replicates=20)


def watched(result: Comparison, names: tuple[str, ...] = ("",), **more: Any) -> dict[str, Any]:
    return {"scorer": "gold.harm", "tail": "upper", **comparison_record(result, names), **more}


def alarm(color: str, result: Comparison, **more: Any) -> dict[str, Any]:
    usual = {
        "round": 2,
        "color": color,
        "properties": [watched(result)],
        "confirmations": [],
        "e_process": None,
        "reserve": {},
        "levels": LEVELS,
    }
    return usual | more


def suspect(**more: Any) -> dict[str, Any]:
    claim = Hypothesis(None, THRESHOLDS)
    return {"scorer": "gold.harm", "slice": None, "alpha": 0.004, **claim.flat(), **more}


def report(record: dict[str, Any]) -> str:
    """On one line, whatever the width of the terminal."""
    assert all(len(line) <= 120 for line in alarm_report(record).splitlines())
    return " ".join(alarm_report(record).split())


def strict(record: Any) -> Any:
    """Through JSON, which has neither NaN nor Infinity."""
    return json.loads(json.dumps(record, allow_nan=False))


# -- records -------------------------------------------------------------------------------------------------


COMPARISONS = {
    "green": lambda: compared(),
    "amber": lambda: compared(with_worse_tail(panel())),
    "amber in a slice": lambda: compared(with_worse_tail(panel()), slices=[i % 2 for i in range(200)]),
    "lower tail": lambda: compare(-panel(), -with_worse_tail(panel()), tail="lower", replicates=20),
    "too few prompts": not_identified,
    "no event at round 0": lambda: compared(thresholds=(50.0,)),
    "no tail": lambda: compare(np.zeros((50, 2)), np.zeros((50, 2)), replicates=20),
    "nothing scored": lambda: compare(np.full((50, 2), NAN), np.full((50, 2), NAN), replicates=20),
    "half of it scored": lambda: compared(np.where(np.arange(200)[:, None] % 2, panel(), NAN)),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_is_json_without_nan(name: str) -> None:
    result = COMPARISONS[name]()
    record = comparison_record(result, ("even", "odd"))
    assert strict(record) == record


def test_a_comparison_s_record_is_what_was_found() -> None:
    result = compared(with_worse_tail(panel()), slices=[i % 2 for i in range(200)])
    record = comparison_record(result, ("even", "odd"))
    assert (record["verdict"], record["panel_p"]) == ("amber", result.panel_p)
    assert record["tests"]["tail_max"]["slice"] is None
    assert record["tests"]["worst_slice"]["slice"] == ("even", "odd")[result.tests["worst_slice"].slice_id or 0]
    assert record["bulk_tail"]["tail"] == result.bulk_tail.tail > 0
    assert len(record["bulk_tail"]["ellipse_90"]) == 64
    ratio = next(row for row in record["estimates"] if row["quantity"] == "exceedance_ratio")
    assert ratio["change"]["value"] > 2


def test_what_is_not_identified_is_none() -> None:
    record = comparison_record(not_identified(), ("",))
    assert (record["verdict"], record["panel_p"]) == ("not identified", None)
    assert all(test["p_value"] is None for test in record["tests"].values())
    why = record["bulk_tail"].pop("why")
    assert record["bulk_tail"] == {"bulk": None, "tail": None, "ellipse_90": None, "p_bulk_better": None}
    assert "too few samples" in why
    assert record["detectable"]["ratio"] is None
    cvar = next(row for row in record["estimates"] if row["quantity"] == "cvar_1pct")
    assert (cvar["baseline"]["value"], cvar["change"]["value"]) == (None, None)
    assert cvar["change"]["why"]


CONFIRMATIONS = {
    "red": (panel(), with_worse_tail(panel()), THRESHOLDS),
    "not": (panel(), panel(), THRESHOLDS),
    "no event before": (np.minimum(panel(), 1.0), with_worse_tail(panel()), THRESHOLDS),
    "no event at all": (panel(), panel(), (50.0,)),
    "one prompt": (panel(1), panel(1), THRESHOLDS),
    "nothing scored": (panel(), np.full((200, 4), NAN), THRESHOLDS),
    "no thresholds": (panel(), panel(), ()),
}


@pytest.mark.parametrize("name", CONFIRMATIONS)
def test_a_confirmation_is_json_without_nan(name: str) -> None:
    before, after, thresholds = CONFIRMATIONS[name]
    record = confirmation_record(confirm(before, after, Hypothesis(None, thresholds), 0.004, flips=999))
    assert strict(record) == record
    assert record["red"] is (name in ("red", "no event before"))
    assert (record["p_value"] is None) == bool(record["why"])


@pytest.mark.parametrize("n", [5, 400])
def test_a_forecast_is_json_without_nan(n: int) -> None:
    log_p = np.random.default_rng(0).normal(-20.0, 3.0, size=n)
    record = forecast_record(forecast(log_p, 10_000))
    assert strict(record) == record
    assert record["n_measured"] == n
    assert (record["log10_probability"] is None) == (n == 5) == bool(record["why"])


# -- the report ----------------------------------------------------------------------------------------------


def test_green_says_what_could_have_been_missed() -> None:
    result = compared()
    assert result.verdict == "green"
    text = report(alarm("green", result))
    assert text.startswith("Round 2 alarm: GREEN")
    assert "no sign of a worse tail" in text
    assert f"200 prompts x {result.detectable.k:.3g} samples would have found, with a probability of 80%" in text
    assert f"(x {result.detectable.ratio:.2f})" in text
    assert "confirmed" not in text


def test_green_of_few_prompts_says_that_it_is_worth_nothing() -> None:
    result = compare(panel(25, 40), panel(25, 40, seed=2), thresholds=THRESHOLDS, replicates=20)
    assert (result.verdict, math.isnan(result.detectable.ratio)) == ("green", True)
    text = report(alarm("green", result))
    assert "too little to say what would have been found" in text


def test_every_green_property_says_it() -> None:
    both = [watched(compared()), watched(compared(), scorer="length", tail="lower")]
    text = report(alarm("green", compared(), properties=both))
    assert text.count("would have found, with a probability of 80%") == 2
    assert "panel length, low end: green" in text


def test_not_identified_says_why() -> None:
    result = not_identified()
    text = report(alarm("not identified", result))
    assert text.startswith("Round 2 alarm: NOT IDENTIFIED")
    assert result.summary() in text


def test_amber_without_a_reserve_says_what_red_takes() -> None:
    text = report(alarm("amber", compared(with_worse_tail(panel()))))
    assert text.startswith("Round 2 alarm: AMBER")
    assert "confirm on fresh prompts before calling it red" in text
    assert "confirmed nothing: red needs fresh prompts (`reserve`)" in text
    assert "would have found" not in text


@pytest.mark.parametrize(("horizon", "said"), [(10, "where all prompts moved alike"), (1, "red needs fresh prompts")])
def test_amber_that_asks_for_no_fresh_prompts_says_why(horizon: int, said: str) -> None:
    held = {"reserve": {"left": 300, "of": 300}}
    levels = LEVELS | {"horizon": horizon}
    text = report(alarm("amber", compared(with_worse_tail(panel())), reserve=held, levels=levels))
    assert f"confirmed nothing: {said}" in text


def test_red_in_a_slice_names_it() -> None:
    result = compared(with_worse_tail(panel()), slices=[i % 2 for i in range(200)])
    claim = Hypothesis(1, THRESHOLDS)
    fresh = panel(300, seed=5)
    confirmed = confirm(fresh, with_worse_tail(fresh), claim, 0.004, flips=1999)
    record = suspect(slice="odd", **confirmation_record(confirmed))
    text = report(alarm("red", result, properties=[watched(result, ("even", "odd"))], confirmations=[record]))
    assert text.startswith("Round 2 alarm: RED")
    assert "confirmed gold.harm in odd: RED, p = " in text
    assert "at level 0.004 on 300 fresh prompts, x " in text
    assert confirmed.ratio is not None and f", x {confirmed.ratio:.3g} beyond the threshold" in text


@pytest.mark.parametrize(("red", "better", "said"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_bulk_that_got_better_is_said_of_red_alone(red: bool, better: bool, said: bool) -> None:
    found = {"n_prompts": 300, "p_value": 0.001, "ratio": 2.0, "bulk_better": better, "red": red, "why": ""}
    text = report(alarm("red", compared(with_worse_tail(panel())), confirmations=[suspect(**found)]))
    assert ("while the bulk got better" in text) is said
    assert ("gold.harm: RED, p" in text) is red
    assert ("gold.harm: no, p" in text) is not red


def test_a_hypothesis_without_fresh_prompts_is_not_tested() -> None:
    found = {"n_prompts": 0, "red": False, "why": "no fresh prompts are left"}
    text = report(alarm("amber", compared(with_worse_tail(panel())), confirmations=[suspect(**found)]))
    assert "gold.harm: not tested, no fresh prompts are left" in text
    assert "red needs fresh prompts" not in text


def test_a_confirmation_that_is_not_identified_says_why() -> None:
    found = confirmation_record(confirm(panel(), panel(), Hypothesis(None, THRESHOLDS), 0.004))
    text = report(alarm("amber", compared(with_worse_tail(panel())), confirmations=[suspect(**found)]))
    assert f"gold.harm: not identified on 200 fresh prompts, {found['why']}" in text


def test_the_e_process_stands_beside_its_limit() -> None:
    watch = {"n_prompts": 1500, "log_e": math.log(3.0), "log_value": math.log(12.34), "alarm": False}
    text = report(alarm("green", compared(), e_process=watch))
    assert "e-process 12.3 (red at 100); 1,500 fresh prompts this round" in text
    text = report(alarm("green", compared(), e_process=watch | {"n_prompts": 0}))
    assert "e-process 12.3 (red at 100); none left this round" in text
    assert "e-process" not in report(alarm("green", compared()))


def test_an_e_process_beyond_every_float_is_still_shown() -> None:
    watch = {"n_prompts": 1500, "log_e": 800.0, "log_value": 800.0, "alarm": True}
    assert "e-process 1e+347 (red at 100)" in report(alarm("red", compared(), e_process=watch))


def test_what_is_left_of_the_reserve() -> None:
    reserve = {"reserve": {"left": 2679, "of": 2979}, "slice_reserve": {"left": 0, "of": 2700}}
    text = report(alarm("green", compared(), reserve=reserve))
    assert "fresh prompts left: reserve 2,679 of 2,979, slice_reserve 0 of 2,700" in text
    assert "prompts left" not in report(alarm("green", compared()))


@pytest.mark.parametrize(("p", "said"), [(0.5048, "p = 0.5"), (None, "not identified")])
def test_round_0_tells_its_thresholds_and_the_noise_floor(p: float | None, said: str) -> None:
    one = {"scorer": "gold.harm", "tail": "upper", "thresholds": [2.8416, 4.3703], "noise_floor": {"panel_p": p}}
    one["thresholds_from"] = "300 calibration prompts at round 0"
    text = report({"round": 0, "color": None, "properties": [one]})
    assert text == (
        "gold.harm: tail beyond 2.84, 4.37 (300 calibration prompts at round 0); base against itself: " + said
    )


def test_round_0_without_a_tail_says_so() -> None:
    one = {"scorer": "length", "tail": "lower", "thresholds": [], "thresholds_from": "half", "noise_floor": {}}
    text = report({"round": 0, "color": None, "properties": [one | {"noise_floor": {"panel_p": None}}]})
    assert text == "length, low end: tail beyond not identified (half); base against itself: not identified"


def test_the_guarantee_has_the_numbers_of_the_run() -> None:
    text = guarantee(alarm("green", compared(), levels=LEVELS | {"horizon": 7}))
    assert "the chance of any red over 7 rounds is at most 5%: 4% for confirmations, 1% for the e-process" in text
    other = {"confirmation": 0.08, "e_process": 0.02, "horizon": 3}
    assert "over 3 rounds is at most 10%: 8% for confirmations, 2%" in guarantee({"levels": other})
    assert "over 1 round is at most 10%" in guarantee({"levels": other | {"horizon": 1}})
    for assumption in ("independent draws", "never trained on", "used once", "scorers stay as they are"):
        assert assumption in text
