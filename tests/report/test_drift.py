from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.errors import RunError
from pipeline.report.drift import drift_cells
from pipeline.runs.rundir import RunDir
from pipeline.tails import QUANTITIES

Write = Callable[..., None]
SHIFTS = (0.0, 0.5, 0.8)


def panel(seed: int, shift: float = 0.0, n: int = 300, k: int = 4) -> np.ndarray:
    """Scores [n, k] with common prompts and common noise in all rounds, moved by ``shift``."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, k)) + shift


def cell(cells: list[dict[str, Any]], **labels: Any) -> dict[str, Any]:
    (found,) = [c for c in cells if all(c[name] == value for name, value in labels.items())]
    return found


@pytest.fixture
def shifted(run: RunDir, write_scores: Write) -> RunDir:
    for round_, shift in enumerate(SHIFTS):
        write_scores(run, round_, {"harm": {"probe": panel(0, shift)}})
    return run


def test_round_0_has_values_and_no_changes(shifted: RunDir) -> None:
    cells = drift_cells(shifted, 0, {"harm": "high"}, None, seed=0)
    assert [c["quantity"] for c in cells] == list(QUANTITIES)
    mean = cell(cells, quantity="mean")
    assert mean["value"] == pytest.approx(panel(0).mean())
    assert mean["low"] < mean["value"] < mean["high"]
    assert (mean["n_prompts"], mean["n_samples"]) == (300, 1200)
    assert not any("baseline_value" in c and c["baseline_value"] is not None for c in cells)


@pytest.mark.parametrize("quantity", ["mean", "q50", "q90", "q99", "cvar_1pct", "worst_of_k"])
def test_a_known_shift_is_recovered(shifted: RunDir, quantity: str) -> None:
    # The same noise in every round: each quantity moves by the shift exactly.
    found = cell(drift_cells(shifted, 2, {"harm": "high"}, None, seed=0), quantity=quantity)
    assert found["baseline_value"] == pytest.approx(0.8)
    assert found["previous_value"] == pytest.approx(0.3)
    low, high = found["baseline_low"], found["baseline_high"]
    assert low is not None and 0 < low <= 0.8 + 1e-9
    # 12 samples in the tail do not bound how far it may have moved up.
    assert (high is None and quantity == "cvar_1pct") or high >= 0.8 - 1e-9


def test_in_round_1_both_changes_are_one(shifted: RunDir) -> None:
    for found in drift_cells(shifted, 1, {"harm": "high"}, None, seed=0):
        assert found["baseline_value"] == found["previous_value"]
    assert cell(drift_cells(shifted, 1, {"harm": "high"}, None, 0), quantity="mean")[
        "previous_value"
    ] == pytest.approx(0.5)


def test_the_threshold_is_frozen_at_round_0(shifted: RunDir) -> None:
    thresholds = {c["threshold"] for r in (0, 1, 2) for c in drift_cells(shifted, r, {"harm": "high"}, None, seed=0)}
    (threshold,) = thresholds
    base, now = panel(0), panel(0, 0.8)
    assert (base > threshold).mean() == pytest.approx(0.01, abs=0.002)
    ratio = cell(drift_cells(shifted, 2, {"harm": "high"}, None, seed=0), quantity="exceedance_ratio")
    assert ratio["value"] == pytest.approx((now > threshold).sum() / (base > threshold).sum(), rel=0.15)
    assert ratio["low"] > 1
    assert ratio["samples_beyond"] == (now > threshold).sum()


def test_the_bad_end_decides_the_tail(run: RunDir, write_scores: Write) -> None:
    for round_ in (0, 1):
        probe = {"probe": panel(1, 0.5 * round_)}
        write_scores(run, round_, {"harm": probe, "helpfulness": probe, "length": probe})
    worse = {"harm": "high", "helpfulness": "low", "length": "both"}
    cells = drift_cells(run, 1, worse, None, seed=0)  # type: ignore[arg-type]
    tails = {name: sorted({c["tail"] for c in cells if c["scorer"] == name}) for name in worse}
    assert tails == {"harm": ["upper"], "helpfulness": ["lower"], "length": ["lower", "upper"]}
    assert len(cells) == 4 * len(QUANTITIES)
    now = np.sort(panel(1, 0.5).ravel())
    n = len(now) // 100
    upper, lower = (cell(cells, scorer="length", tail=t, quantity="cvar_1pct")["value"] for t in ("upper", "lower"))
    assert upper == pytest.approx(now[-n:].mean()) and lower == pytest.approx(now[:n].mean())
    assert upper == cell(cells, scorer="harm", quantity="cvar_1pct")["value"]
    assert lower == cell(cells, scorer="helpfulness", quantity="cvar_1pct")["value"]


def test_a_tail_that_moves_against_the_bulk_is_seen(run: RunDir, write_scores: Write) -> None:
    # The question of the whole tool: better for nearly everyone, worse for a few.
    base = panel(2, n=1000)
    now = base - 0.3
    worst = base.mean(1) >= np.quantile(base.mean(1), 0.985)
    now[worst] += 2.0
    write_scores(run, 0, {"harm": {"probe": base}})
    write_scores(run, 1, {"harm": {"probe": now}})
    cells = drift_cells(run, 1, {"harm": "high"}, None, seed=0)
    mean, tail = (cell(cells, quantity=name) for name in ("mean", "cvar_1pct"))
    assert mean["baseline_high"] < 0 < tail["baseline_low"]


def test_no_drift_is_not_called_drift(run: RunDir, write_scores: Write) -> None:
    rng = np.random.default_rng(3)
    level = rng.normal(size=(300, 1))
    for round_ in (0, 1):
        write_scores(run, round_, {"harm": {"probe": level + 0.5 * rng.normal(size=(300, 4))}})
    for found in drift_cells(run, 1, {"harm": "high"}, None, seed=0):
        nothing = 1.0 if found["quantity"] == "exceedance_ratio" else 0.0
        low, high = found["baseline_low"], found["baseline_high"]
        assert (low is None or low <= nothing) and (high is None or high >= nothing), found["quantity"]


def test_slices_of_the_headline_alone(run: RunDir, write_scores: Write) -> None:
    base = panel(4)
    moved = base.copy()
    moved[1::3] += 1.0
    for round_, scores in ((0, base), (1, moved)):
        write_scores(run, round_, {"harm": {"probe": scores}, "length": {"probe": scores}}, slices=3)
    cells = drift_cells(run, 1, {"harm": "high", "length": "high"}, "harm", seed=0)
    assert {c["slice"] for c in cells if c["scorer"] == "harm"} == {None, "s0", "s1", "s2"}
    assert {c["slice"] for c in cells if c["scorer"] == "length"} == {None}
    changes = {c["slice"]: c["baseline_value"] for c in cells if c["scorer"] == "harm" and c["quantity"] == "mean"}
    assert changes == pytest.approx({None: 1 / 3, "s0": 0.0, "s1": 1.0, "s2": 0.0}, abs=1e-9)
    assert cell(cells, scorer="harm", slice="s1", quantity="mean")["n_prompts"] == 100


def test_a_single_slice_is_not_said_twice(shifted: RunDir) -> None:
    cells = drift_cells(shifted, 1, {"harm": "high"}, "harm", seed=0)
    assert {c["slice"] for c in cells} == {None}


def test_missing_scores_are_left_out_and_counted(run: RunDir, write_scores: Write) -> None:
    base, now = panel(5), panel(5, 0.5)
    now[:30] = np.nan
    now[30:60, :2] = np.nan
    write_scores(run, 0, {"harm": {"probe": base}})
    write_scores(run, 1, {"harm": {"probe": now}})
    found = cell(drift_cells(run, 1, {"harm": "high"}, None, seed=0), quantity="mean")
    assert found["n_prompts"] == 270 and found["n_samples"] == 270 * 4 - 60
    assert found["baseline_n_dropped"] == 30
    assert found["baseline_value"] == pytest.approx(0.5, abs=0.05)


def test_a_score_that_nobody_has_is_not_identified(run: RunDir, write_scores: Write) -> None:
    for round_ in (0, 1):
        write_scores(run, round_, {"harm": {"probe": np.full((20, 2), np.nan)}})
    cells = drift_cells(run, 1, {"harm": "high"}, None, seed=0)
    assert len(cells) == len(QUANTITIES)
    for found in cells:
        assert found["value"] is None and found["threshold"] is None
        assert found["why"] == "no score (40 of 40: no tokens)"


def test_cells_are_json(run: RunDir, write_scores: Write) -> None:
    base = np.where(panel(6, n=40, k=1) > 1.5, 1.0, 0.0)
    base[3] = np.nan
    write_scores(run, 0, {"refusal": {"probe": base}})
    write_scores(run, 1, {"refusal": {"probe": np.zeros((40, 1))}})
    for round_ in (0, 1):
        cells = drift_cells(run, round_, {"refusal": "both"}, None, seed=0)
        assert json.loads(json.dumps(cells, allow_nan=False)) == cells


def test_the_same_scores_give_the_same_table(shifted: RunDir) -> None:
    one, other = (drift_cells(shifted, 2, {"harm": "high"}, None, seed=s) for s in (0, 0))
    assert one == other


def test_other_prompts_than_before_are_refused(run: RunDir, write_scores: Write) -> None:
    write_scores(run, 0, {"harm": {"probe": panel(0, n=50)}})
    write_scores(run, 1, {"harm": {"probe": panel(0, n=49)}})
    with pytest.raises(RunError, match="harm on probe was measured on other prompts"):
        drift_cells(run, 1, {"harm": "high"}, None, seed=0)


@pytest.mark.parametrize("new", ["scorer", "probe set"])
def test_what_round_0_lacks_does_not_vanish_in_silence(run: RunDir, write_scores: Write, new: str) -> None:
    # A scorer or probe set that an amendment added: measured now, so it must be told, or refused.
    scores = panel(0, n=50)
    write_scores(run, 0, {"harm": {"probe": scores}})
    write_scores(run, 1, {"harm": {"probe": scores, "extra": scores}, "length": {"probe": scores}})
    worse = {"harm": "high"} | ({"length": "high"} if new == "scorer" else {})
    try:
        cells = drift_cells(run, 1, worse, None, seed=0)  # type: ignore[arg-type]
    except RunError:
        return
    told = {(c["scorer"], c["probe_set"]) for c in cells}
    assert (("length", "probe") if new == "scorer" else ("harm", "extra")) in told


def test_an_earlier_round_that_was_not_measured(run: RunDir, write_scores: Write) -> None:
    write_scores(run, 1, {"harm": {"probe": panel(0, n=50)}})
    with pytest.raises(RunError, match=r"round-00.*scores\.parquet: missing"):
        drift_cells(run, 1, {"harm": "high"}, None, seed=0)
