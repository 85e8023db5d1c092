from collections.abc import Callable

import numpy as np
import pytest


def random_effects(
    rng: np.random.Generator, n_prompts: int, k: int, *, icc: float = 0.7, churn: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """Two rounds of a Gaussian random-effects panel; each score is standard normal in either round."""
    first = rng.normal(size=(n_prompts, 1))
    second = churn * first + np.sqrt(1 - churn**2) * rng.normal(size=(n_prompts, 1))
    noise = rng.normal(size=(2, n_prompts, k))
    return tuple(np.sqrt(icc) * a + np.sqrt(1 - icc) * e for a, e in zip((first, second), noise, strict=True))


def messy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A small pair of panels with ties, missing samples, missing prompts and unequal k."""
    rng = np.random.default_rng(seed)
    n_prompts, k, other_k = rng.integers(4, 60), rng.integers(1, 5), rng.integers(1, 5)
    sides = []
    for columns in (k, other_k):
        scores = rng.normal(size=(n_prompts, 1)) + rng.normal(size=(n_prompts, columns))
        if rng.random() < 0.4:
            scores = scores.round()
        scores[rng.random(scores.shape) < rng.choice([0.0, 0.3])] = np.nan
        sides.append(scores)
    return sides[0], sides[1]


@pytest.fixture(name="random_effects", scope="session")
def _random_effects() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return random_effects


@pytest.fixture(name="messy", scope="session")
def _messy() -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    return messy
