import math

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.tails.betting import EProcess, log_e_value


def test_an_e_value_by_hand():
    before, after = np.zeros((3, 2)), np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert math.exp(log_e_value(before, after, 0.5)) == pytest.approx((1.5 * 1.25 + 1.9 * 1.45) / 2)
    assert log_e_value(-before, -after, -0.5, tail="lower") == log_e_value(before, after, 0.5)
    assert log_e_value(before * np.nan, after, 0.5) == 0.0


def test_its_mean_is_at_most_one_with_any_dependence_within_prompts(random_effects):
    rng = np.random.default_rng(0)
    values = [log_e_value(*random_effects(rng, 30, 4, icc=0.9), 1.0) for _ in range(4000)]
    values = np.exp(values)
    assert values.mean() <= 1 + 3 * values.std() / np.sqrt(len(values))
    assert np.mean(values >= 20) <= 0.05


def test_the_mixture_over_starts_by_its_definition():
    logs = [0.3, -0.2, 1.1, 0.4]
    process = EProcess()
    for t, log_e in enumerate(logs, start=1):
        process = process.update(log_e)
        direct = sum(math.exp(sum(logs[s - 1 : t])) / (s * (s + 1)) for s in range(1, t + 1)) + 1 / (t + 1)
        assert math.exp(process.log_value) == pytest.approx(direct)
    assert process.rounds == 4


def test_worthless_bets_leave_it_at_one():
    process = EProcess()
    for _ in range(50):
        process = process.update(0.0)
    assert process.log_value == pytest.approx(0.0)


def test_an_alarm_stays_and_a_late_onset_is_found():
    process = EProcess()
    for _ in range(20):
        process = process.update(-1.0)
    assert not process.alarm(0.05)
    for _ in range(4):
        process = process.update(3.0)
    assert process.alarm(0.01)
    assert process.update(-50.0).alarm(0.01)


def test_a_threshold_must_be_a_number():
    with pytest.raises(InputError, match="threshold"):
        log_e_value(np.zeros((2, 1)), np.zeros((2, 1)), float("nan"))
