import math

import numpy as np
import pytest
from scipy import stats

from pipeline.errors import InputError
from pipeline.tails.forecasting import forecast


def logs(psi):
    return -np.exp(-psi)


def test_an_exponential_tail_is_recovered():
    psi = -3 + stats.expon(scale=0.2).ppf(1 - (np.arange(1, 2001) - 0.5) / 2000)
    found = forecast(logs(psi), 200_000)
    truth = -math.exp(3 - 0.2 * math.log(200_000)) / math.log(10)
    assert found.log10_probability == pytest.approx(truth, abs=0.05)
    # The published line runs high: the plotting positions of the very largest scores pull it.
    assert truth < found.least_squares < truth + 0.3
    assert found.low < truth < found.high


def test_intervals_cover_and_likelihood_beats_least_squares():
    rng, hits, errors = np.random.default_rng(0), 0, np.zeros(2)
    truth = -math.exp(3 - 0.2 * math.log(100_000)) / math.log(10)
    for _ in range(400):
        found = forecast(logs(-3 + rng.exponential(0.2, size=1000)), 100_000)
        hits += found.low <= truth <= found.high
        errors += np.abs([found.log10_probability - truth, found.least_squares - truth])
    assert 0.90 <= hits / 400 <= 0.98
    assert errors[0] < errors[1]


def test_order_and_missing_queries_do_not_matter():
    rng = np.random.default_rng(1)
    values = logs(rng.normal(-3, 0.3, size=200))
    assert forecast(np.append(rng.permutation(values), np.nan), 10_000) == forecast(values, 10_000)


@pytest.mark.parametrize(
    ("values", "n", "why"),
    [
        (np.full(10, -3.0), 1000, "at least 50"),
        (logs(np.linspace(-4, -2, 100)), 100, "counting"),
        (np.r_[0.0, logs(np.linspace(-4, -2, 100))], 1000, "for certain"),
        (np.r_[np.full(95, -np.inf), -1.0, -2.0, -3.0, -4.0, -5.0], 1000, "above zero"),
        (np.log(np.random.default_rng(2).binomial(16, 0.3, size=500) / 16 + 1e-9), 1000, "ties"),
    ],
)
def test_what_cannot_be_forecast_is_refused_with_the_reason(values, n, why):
    found = forecast(values, n)
    assert not found.identified
    assert why in found.why
    assert np.isnan([found.low, found.high, found.least_squares]).all()


def test_bad_input():
    with pytest.raises(InputError, match="positive"):
        forecast(np.full(100, 0.5), 1000)
    with pytest.raises(InputError, match="one-dimensional"):
        forecast(np.zeros((3, 3)), 1000)
    with pytest.raises(InputError, match="expected numbers"):
        forecast(["a"], 1000)
    with pytest.raises(InputError, match="n and level"):
        forecast(np.full(100, -1.0), 0)
