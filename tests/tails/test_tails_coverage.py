"""Do 95% intervals hold the truth 95% of the time? A random-effects population, where the truth is known."""

import numpy as np
import pytest
from scipy import stats

from pipeline.tails.plans import Settings
from pipeline.tails.quantities import measure

REPETITIONS = 300
SHAPE = (1000, 4)
U99 = stats.norm.ppf(0.99)
TRUTH = {
    "mean": 0.0,
    "q50": 0.0,
    "q99": U99,
    "q99.9": stats.norm.ppf(0.999),
    "cvar_1pct": stats.norm.pdf(U99) / 0.01,
    "exceedance": 0.01,
}
CHANGES = {"mean": 0.0, "q99": 0.0, "cvar_1pct": 0.0, "exceedance": 0.0, "exceedance_ratio": 1.0}
SETTINGS = Settings(threshold=float(U99), tail="upper", k=None, level=0.95, replicates=300, seed=0)


@pytest.fixture(name="coverage", scope="module")
def _coverage():
    """Return the share of repetitions in which each interval holds the truth: of values, of changes, of iid."""
    rng = np.random.default_rng(20)
    hits = {name: dict.fromkeys(truth, 0) for name, truth in (("value", TRUTH), ("change", CHANGES))}
    hits["iid"] = {"q99": 0, "mean": 0}
    icc, churn = 0.7, 0.8
    for _ in range(REPETITIONS):
        prompts = rng.normal(size=(SHAPE[0], 1))
        churned = churn * prompts + np.sqrt(1 - churn**2) * rng.normal(size=prompts.shape)
        baseline, current = (
            np.sqrt(icc) * effect + np.sqrt(1 - icc) * rng.normal(size=SHAPE) for effect in (prompts, churned)
        )
        runs = {
            "value": measure(None, current, list(TRUTH), SETTINGS),
            "change": measure(baseline, current, list(CHANGES), SETTINGS),
            "iid": measure(None, current.reshape(-1, 1), ["q99", "mean"], SETTINGS._replace(replicates=100)),
        }
        for name, results in runs.items():
            for quantity, result in results.items():
                truth = (CHANGES if name == "change" else TRUTH)[quantity]
                hits[name][quantity] += result.low <= truth <= result.high
    return {name: {q: n / REPETITIONS for q, n in counts.items()} for name, counts in hits.items()}


@pytest.mark.parametrize("quantity", TRUTH)
def test_values(coverage, quantity):
    assert 0.90 <= coverage["value"][quantity] <= 0.985


@pytest.mark.parametrize("quantity", CHANGES)
def test_changes(coverage, quantity):
    assert 0.90 <= coverage["change"][quantity] <= 0.985


def test_intervals_over_samples_instead_of_prompts_cover_too_little(coverage):
    assert coverage["iid"]["mean"] < 0.80
    assert coverage["iid"]["q99"] < coverage["value"]["q99"] - 0.03
