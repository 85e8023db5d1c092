import json

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tails import QUANTITIES, change, estimate, frozen_threshold, summarise


@pytest.fixture(name="rounds", scope="module")
def _rounds():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(400, 1)) + rng.normal(size=(400, 3))
    return [first, first - 0.5 + 0.1 * rng.normal(size=first.shape), first + rng.normal(size=first.shape)]


def test_the_table_holds_what_the_single_functions_say(rounds):
    threshold = frozen_threshold(rounds[0])
    rows = {row.quantity: row for row in summarise(rounds[0], rounds[2], rounds[1], threshold=threshold)}
    assert list(rows) == list(QUANTITIES)
    for quantity, row in rows.items():
        assert row.change_from_baseline == change(rounds[0], rounds[2], quantity, threshold=threshold)
        assert row.change_from_previous == change(rounds[1], rounds[2], quantity, threshold=threshold)
        if quantity != "exceedance_ratio":
            assert row.estimate == estimate(rounds[2], quantity, threshold=threshold)
    ratio = rows["exceedance_ratio"]
    assert ratio.estimate == ratio.change_from_baseline


def test_round_nought_has_no_changes(rounds):
    rows = summarise(None, rounds[0], threshold=1.0)
    assert all(row.change_from_baseline is None and row.change_from_previous is None for row in rows)
    assert [row.quantity for row in rows if not row.estimate.identified] == ["exceedance_ratio"]


def test_changes_are_since_the_first_and_since_the_previous_round(rounds):
    second = summarise(rounds[0], rounds[2], rounds[1], threshold=1.0)
    assert len(second) == 8
    assert [row.change_from_previous for row in second] == [
        row.change_from_baseline for row in summarise(rounds[1], rounds[2], threshold=1.0)
    ]
    mean = summarise(rounds[0], rounds[1], rounds[0], threshold=1.0)[0]
    assert mean.change_from_baseline == mean.change_from_previous
    assert mean.change_from_baseline.value == pytest.approx(-0.5, abs=0.01)
    assert mean.change_from_baseline.high - mean.change_from_baseline.low < 0.03


def test_the_worst_of_k_is_taken_at_one_k(rounds):
    missing = rounds[2].copy()
    missing[:, 2] = np.nan
    (row,) = summarise(rounds[0], missing, rounds[1], quantities=["worst_of_k"])
    assert row.change_from_baseline == change(rounds[0], missing, "worst_of_k", k=2)
    (row,) = summarise(missing, rounds[0], quantities=["worst_of_k"])
    assert row.estimate == estimate(rounds[0], "worst_of_k", k=2)


def test_records_are_json_and_explain_what_is_missing(rounds):
    small = [scores[:50] for scores in rounds]
    first, second, third = small
    for given in ((None, first), (first, second, first), (first, third, second)):
        for row in summarise(*given, threshold=9.0):
            record = json.loads(json.dumps(row.flat(), allow_nan=False))
            assert record["quantity"] == row.quantity
            for prefix in ("", "baseline_", "previous_"):
                if None in [record.get(prefix + end, 0.0) for end in ("value", "low", "high")]:
                    assert record[prefix + "why"]


def test_tables_of_missing_scores_say_so_in_every_row():
    missing = np.full((10, 2), np.nan)
    for row in summarise(missing, missing, missing, threshold=0.0):
        assert not row.estimate.identified
        assert not row.change_from_baseline.identified


def test_wrong_arrays_are_named(rounds):
    bad = rounds[0].copy()
    bad[0, 0] = np.inf
    with pytest.raises(InputError, match="previous"):
        summarise(rounds[0], rounds[1], bad)
    with pytest.raises(InputError, match="400, 399 prompts"):
        summarise(rounds[0], rounds[1][:-1])
