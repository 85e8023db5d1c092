"""A small part of benchmarks/detection.py: does the recorded picture still hold?"""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

REPETITIONS = 100
CELLS = (
    ("normal", "N1"),
    ("normal", "N2-"),
    ("normal", "C1"),
    ("normal", "D1"),
    ("ten grades", "C1"),
    ("ragged", "N1"),
)


@pytest.fixture(name="detection", scope="module")
def _detection():
    path = Path(__file__).parents[2] / "benchmarks" / "detection.py"
    spec = importlib.util.spec_from_file_location("detection", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["detection"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="shares", scope="module")
def _shares(detection):
    """Return the share of rejections at 5%, by cell and test."""
    counted = {}
    for cell in CELLS:
        parts = [detection.tests_chunk((*cell, 1000, 4), seed) for seed in range(REPETITIONS // detection.CHUNK)]
        counted[cell] = lambda test, parts=parts: sum(part[f"{test} .05"] for part in parts) / REPETITIONS
    return counted


@pytest.mark.parametrize("cell", [("normal", "N1"), ("normal", "N2-"), ("ragged", "N1")])
@pytest.mark.parametrize("test", ["tail_max", "worst_slice", "probe", "panel"])
def test_false_alarms(shares, cell, test):
    # Five percent and three Monte-Carlo standard errors.
    assert shares[cell](test) <= 0.115


def test_power(shares):
    assert shares["normal", "C1"]("tail_max") >= 0.90
    assert shares["normal", "C1"]("worst_slice") >= 0.93
    assert shares["normal", "D1"]("tail_max") >= 0.95
    assert shares["ten grades", "C1"]("tail_max") >= 0.88


def test_what_must_fail_fails(shares, detection):
    assert shares["normal", "C1"]("mean, paired t") < 0.05
    assert shares["normal", "N1"]("KS two-sided (iid)") > 0.9
    assert shares["ten grades", "C1"]("p99 difference, bootstrap") < 0.3
    fresh = sum(
        (detection.tests_chunk(("normal", "fresh", 1000, 16), seed) for seed in range(2)), start=detection.Counter()
    )
    assert fresh["Welch t (iid)" + " .05"] / 100 > 0.18


def test_work_goes_on_where_it_stopped(detection):
    results = {}
    done = detection.work("forecast", results, time.monotonic() + 60)
    next(done)
    next(done)
    done.close()
    (cell,) = results.values()
    assert cell["repetitions"] == 2 * detection.CHUNK
    straight = detection.forecast_chunk(tuple(cell["cell"][1:]), 0) + detection.forecast_chunk(
        tuple(cell["cell"][1:]), 1
    )
    assert cell["counts"]["identified"] == straight["identified"]
    assert "forecast" in detection.table(results)
