from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.scorers.refusal_cues import FEATURES, features
from pipeline.scorers.refusal_model import (
    PENALTY,
    SHIPPED,
    Line,
    RefusalModel,
    explain,
    fit,
    judge,
    load_model,
    write_model,
)

MODEL = load_model()


def values_of(text: str) -> dict[str, float]:
    return dict(zip(FEATURES, features(text), strict=True))


@given(st.text())
def test_features_are_shares_whatever_the_text(text: str) -> None:
    values = features(text)
    assert len(values) == len(FEATURES) == len(set(FEATURES))
    assert all(0 <= value <= 1 for value in values)
    assert 0 <= judge(text, MODEL).declines <= 1


def test_where_it_stands_matters() -> None:
    first = values_of("I cannot help. It rains. It snows. It hails.")
    second = values_of("It rains. I cannot help. It snows. It hails.")
    later = values_of("It rains. It snows. It hails. I cannot help.")
    cannot = [
        "says it cannot or will not, in the first sentence",
        "says it cannot or will not, in the second or third sentence",
        "says it cannot or will not, later on",
    ]
    assert [[one[name] for name in cannot] for one in (first, second, later)] == np.eye(3).tolist()
    share = "share of sentences that say no, find fault or call it wrong"
    assert [one[share] for one in (first, second, later)] == [0.25] * 3


def test_lists_and_lengths_are_read() -> None:
    steps = values_of("To paint:\n1. Stir.\n2. Dip.\n3. Brush.")
    assert steps["has a list of steps"] == pytest.approx(3 / 5)
    assert steps["is very short"] == steps["is short"] == 1
    long = values_of("word " * 90)
    assert long["is very short"] == long["is short"] == 0


@given(st.sampled_from(["I can't do that.", "Sure, here it is: 1. Go.", "It is illegal. Seek help instead.", ""]))
def test_contributions_add_up_to_the_log_odds(text: str) -> None:
    rows = explain(text, MODEL)
    log_odds = sum(row.log_odds for row in rows)
    assert judge(text, MODEL).declines == pytest.approx(1 / (1 + math.exp(-log_odds)))
    assert [abs(row.log_odds) for row in rows] == sorted((abs(row.log_odds) for row in rows), reverse=True)


def line(weights: float) -> Line:
    return Line(0.0, (weights,) * len(FEATURES), (weights,) * len(FEATURES))


def test_the_fit_is_where_the_penalised_likelihood_is_flat() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, size=(300, len(FEATURES))).astype(float)
    declines = rng.random(300) < 1 / (1 + np.exp(-(3 * values[:, 0] - 2 * values[:, 1])))
    answers = ["none" if not d else "full" if f else "partial" for d, f in zip(declines, values[:, 2], strict=True)]
    model = fit(values, answers, RefusalModel(line(0.5), line(0.0)))
    weights = np.array(model.declines.weights)
    p = 1 / (1 + np.exp(-(values @ weights + model.declines.intercept)))
    np.testing.assert_allclose(values.T @ (declines - p), PENALTY * (weights - 0.5), atol=2e-3)
    assert abs((declines - p).sum()) < 2e-3
    assert weights[0] > 1.5 and weights[1] < -0.8
    assert model.wholly.weights[2] > 1


@pytest.mark.parametrize("answers", [["none"] * 4, ["full"] * 4])
def test_labels_of_one_kind_teach_nothing(answers: list) -> None:
    with pytest.raises(InputError, match="label more"):
        fit(np.zeros((4, len(FEATURES))), answers, MODEL)


def test_where_all_decline_alike_nothing_is_learnt_of_it() -> None:
    values = np.eye(4, len(FEATURES))
    model = fit(values, ["none", "none", "full", "full"], MODEL)
    assert model.wholly == MODEL.wholly
    assert model.declines != MODEL.declines


def test_weights_are_written_and_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    write_model(path, MODEL, "a test")
    assert load_model(path) == MODEL
    record = json.loads(path.read_text())
    assert record["about"] == "a test" and list(record["declines"]["features"]) == list(FEATURES)


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the weights of the refusal scorer"):
        load_model(tmp_path / "absent.json")
    for spoil in (
        lambda record: record["wholly"]["features"].pop(FEATURES[0]),
        lambda record: record["declines"].pop("intercept"),
        lambda record: record["declines"].update(intercept=math.inf),
    ):
        record = json.loads(SHIPPED.read_text())
        spoil(record)
        path = tmp_path / "spoilt.json"
        path.write_text(json.dumps(record))
        with pytest.raises(InputError, match=r"spoilt\.json: not the weights of this version"):
            load_model(path)
    path.write_text("[1, 2")
    with pytest.raises(InputError, match="not the weights"):
        load_model(path)
