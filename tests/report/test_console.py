from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.report.console import cost_report, drift_report, rounds_report
from pipeline.report.drift import drift_cells
from pipeline.runs.rundir import RunDir

WORSE = {"harm": "high", "length": "both", "gone": "high"}


@pytest.fixture
def drifts(run: RunDir, write_scores: Callable[..., None]) -> list[dict[str, Any]]:
    """Three rounds of a real table: a headline, a scorer with two tails, and one that nobody has a score of."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(60, 1))
    found = []
    for round_ in range(3):
        noise = level + 0.3 * rng.normal(size=(60, 2))
        nothing = np.full((60, 2), np.nan)
        write_scores(
            run,
            round_,
            {
                "gone": {"probe": nothing, "other": nothing},
                "harm": {"probe": noise + round_, "other": noise},
                "length": {"probe": 10 + noise, "other": noise},
            },
        )
    for round_ in range(3):
        cells = drift_cells(run, round_, WORSE, "harm", seed=0)  # type: ignore[arg-type]
        found.append({"round": round_, "level": 0.95, "headline": "harm", "cells": cells})
    return found


@pytest.mark.parametrize("round_", [0, 1, 2])
@pytest.mark.parametrize("every_scorer", [False, True])
def test_a_table_of_every_kind_of_cell_is_shown(drifts: list[dict[str, Any]], round_: int, every_scorer: bool) -> None:
    text = drift_report(drifts[round_], every_scorer=every_scorer)
    assert text.startswith(f"Round {round_} ")
    assert "95% interval" in text
    assert "harm on probe: 60 prompts, 120 samples" in text
    assert "harm on other" in text
    assert ("length, low end on probe" in text) == every_scorer
    assert ("since round 0" in text) == (round_ > 0)
    assert ("since round 1" in text) == (round_ == 2)
    assert "nan" not in text.lower().split() and "None" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 140, "a line that wraps is no table"


def test_a_missing_score_says_that_it_is(drifts: list[dict[str, Any]]) -> None:
    text = drift_report(drifts[1], every_scorer=True)
    lines = [line for line in text.splitlines() if "not identified" in line]
    assert len(lines) >= 7, "every quantity of the score that nobody has"
    (brief,) = [line for line in drift_report(drifts[1]).splitlines() if line.startswith("    gone")]
    assert brief.endswith("not identified: no score (120 of 120: no tokens)"), "one line says it of them all"
    assert all(line.split("not identified: ")[1].strip() for line in lines), "and why"


def row(quantity: str, **values: Any) -> dict[str, Any]:
    cell = {"scorer": "harm", "tail": "upper", "probe_set": "probe", "slice": None, "quantity": quantity}
    cell |= {"n_prompts": 5, "n_samples": 10, "why": "too few", "value": 1.0, "low": 0.5, "high": 2.0}
    for prefix in ("baseline_", "previous_"):
        cell |= {prefix + "value": 0.25, prefix + "low": 0.1, prefix + "high": 0.4, prefix + "why": ""}
    return cell | values


def shown(round_: int, *cells: dict[str, Any]) -> str:
    return drift_report({"round": round_, "level": 0.95, "headline": "harm", "cells": list(cells)})


def test_unbounded_ends_are_infinite() -> None:
    text = shown(1, row("q99", high=None, baseline_low=None))
    assert "[0.5, ∞]" in text and "[-∞, 0.4]" in text
    assert "[-∞, ∞]" in shown(0, row("q99", low=None, high=None))


def test_an_unidentified_change_beside_a_known_value() -> None:
    text = shown(1, row("mean", baseline_value=None, baseline_low=None, baseline_high=None))
    assert "since round 0 not identified" in text and "*" not in text.split("not identified")[0]


@pytest.mark.parametrize(
    ("quantity", "low", "high", "star"),
    [
        ("mean", 0.1, 0.4, True),
        ("mean", -0.4, -0.1, True),
        ("mean", -0.1, 0.4, False),
        ("mean", 0.0, 0.4, False),
        ("mean", 0.1, None, True),
        ("mean", None, 0.4, False),
        ("exceedance_ratio", 1.2, 4.0, True),
        ("exceedance_ratio", 0.1, 0.9, True),
        ("exceedance_ratio", 0.9, 1.1, False),
    ],
)
def test_a_star_is_an_interval_without_no_change(quantity: str, low: float, high: float, star: bool) -> None:
    table = shown(1, row(quantity, baseline_low=low, baseline_high=high)).split("\n\n  *")[0]
    assert ("*" in table) == star
    if quantity != "exceedance_ratio":
        assert "+0.25" in table, "changes have a sign"
    else:
        assert "+" not in table, "ratios have none"


def test_a_table_of_nothing() -> None:
    assert drift_report({"round": 0, "level": 0.95, "headline": None, "cells": []}).startswith("Round 0")


def test_a_score_is_shown_on_the_first_probe_set_that_has_it(run: RunDir, write_scores: Callable[..., None]) -> None:
    rng = np.random.default_rng(2)
    for round_ in range(2):
        panel = rng.uniform(size=(40, 2))
        scorers = {"harm": {"a": panel, "b": panel}, "under": {"a": np.full((40, 2), np.nan), "b": panel + round_}}
        write_scores(run, round_, scorers)
    worse = {"harm": "high", "under": "high"}
    tables = [drift_cells(run, round_, worse, "harm", seed=0) for round_ in range(2)]  # type: ignore[arg-type]
    drifts = [{"round": r, "level": 0.95, "headline": "harm", "cells": cells} for r, cells in enumerate(tables)]
    for text in (drift_report(drifts[1]), rounds_report(drifts)):
        line = next(line for line in text.split("  on b ")[1].splitlines() if line.strip().startswith("under"))
        assert "*" in line and "no score" not in text
    assert "on a " not in drift_report(drifts[1]).split("harm on b")[1], "no table without a score"


def test_all_rounds_side_by_side(drifts: list[dict[str, Any]]) -> None:
    lines = rounds_report(drifts).splitlines()
    assert lines[0].split() == ["on", "other", "round", "0", "round", "1", "round", "2"]
    by_name = {line[:38].strip(): line[38:].split() for line in lines[1:-1]}
    (gone,) = [line for line in lines if line.startswith("  gone")]
    assert gone.endswith("not identified: no score (120 of 120: no tokens)"), "once, and why"
    assert len(by_name["length, low end CVaR 1%"]) == len(by_name["length CVaR 1%"]) == 3
    assert "length, low end mean" not in by_name, "both ends have one mean"
    values = [
        next(
            c["value"] for c in d["cells"] if (c["scorer"], c["probe_set"], c["quantity"]) == ("harm", "other", "mean")
        )
        for d in drifts
    ]
    assert [float(text.rstrip("*")) for text in by_name["harm mean"]] == pytest.approx(values, rel=0.01)


def test_a_scorer_that_one_round_lacks(drifts: list[dict[str, Any]]) -> None:
    drifts[1]["cells"] = [c for c in drifts[1]["cells"] if c["scorer"] != "length"]
    by_name = {line[:38].strip(): line[38:].split() for line in rounds_report(drifts).splitlines()[1:-1]}
    assert by_name["length mean"][1] == "-" and by_name["length mean"][2] != "-"


@pytest.fixture
def asked(run: RunDir, write_scores: Callable[..., None]) -> list[dict[str, Any]]:
    """Two rounds with two sets of questions beside the probe set, one of them in slices that are shown."""
    rng = np.random.default_rng(1)
    for round_ in range(2):
        harm, choice = rng.normal(size=(40, 2)), rng.uniform(size=(40, 1))
        scorers = {
            "harm": {"probe": harm, "other": harm},
            "choice": {"choice.a": choice, "choice.b": choice},
            "nll_reference": {"nll_reference.c": choice + round_},
        }
        write_scores(run, round_, scorers, slices=2)
    worse = {"harm": "high", "choice": "both", "nll_reference": "high"}
    tables = [drift_cells(run, round_, worse, "harm", seed=0) for round_ in range(2)]  # type: ignore[arg-type]
    return [
        {"round": round_, "level": 0.95, "headline": "harm", "cells": cells} for round_, cells in enumerate(tables)
    ]


def test_every_set_of_questions_has_a_block_of_its_own(asked: list[dict[str, Any]]) -> None:
    blocks = [block.splitlines() for block in rounds_report(asked).split("\n\n")]
    assert [block[0].split()[1] for block in blocks] == ["other", "choice.a", "choice.b", "nll_reference.c"]
    assert [line[:38].strip() for line in blocks[1][1:]] == [
        "choice mean",
        "choice CVaR 1%",
        "choice, low end CVaR 1%",
    ]
    of_slices = [line[:38].strip() for line in blocks[3][1:]]
    assert of_slices[:4] == [
        "nll_reference mean",
        "nll_reference CVaR 1%",
        "nll_reference s0 mean",
        "nll_reference s1 mean",
    ]
    assert all(line.endswith("*") for line in blocks[3][3:5]), "each part rose by one"
    one_round = drift_report(asked[1])
    for name in ("choice.a", "choice.b", "nll_reference.c"):
        assert f"  on {name} " in one_round
    assert "on probe " not in one_round.split("harm on probe")[1], "other probe sets are in drift.json alone"


def test_costs() -> None:
    def manifest(stage: str, wall: float, model: float, processes: int = 1, **tokens: int) -> dict[str, Any]:
        timing = {"wall_seconds": wall, "work_seconds": wall, "model_seconds": model, "processes": processes}
        return {"round": 1, "stage": stage, "timing": timing, "tokens": tokens}

    text = cost_report(
        [
            manifest("generate", 10.0, 8.0, new=5000),
            manifest("distill", 4.0, 3.0, trained=1000),
            manifest("score", 10.0, 16.0, processes=2),
            manifest("refine", 0.0, 0.0),
        ]
    )
    rows = {line.split()[1]: line.split()[2:] for line in text.splitlines()[1:]}
    assert rows["generate"] == ["10.0", "500", "20.0%"]
    assert rows["distill"] == ["4.0", "250", "25.0%"]
    assert rows["score"] == ["10.0", "20.0%"], "two processes have twice the time"
    assert rows["refine"][0] == "0.0"


def test_the_noise_floor_stands_beside_round_0(drifts: list[dict[str, Any]]) -> None:
    again = {**drifts[0], "round": "again"}
    lines = rounds_report(drifts, again).splitlines()
    assert lines[0].split()[2:8] == ["round", "0", "0", "again", "round", "1"]
    by_name = {line[:38].strip(): line[38:].split() for line in lines[1:-1]}
    assert by_name["harm mean"][0].rstrip("*") == by_name["harm mean"][1].rstrip("*") != by_name["harm mean"][2]
