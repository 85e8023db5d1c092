"""Where the tail begins: thresholds of round 0 that stay the same for all rounds."""

import numpy as np
from numpy.typing import ArrayLike

from pipeline.tails.arrays import Tail, as_scores, canonical, orientation
from pipeline.tails.quantiles import frozen_threshold

# From this many calibration samples on, the 1-in-2500 level is not yet the very last sample.
MANY_SAMPLES = 4000
# A worst grade that holds more than this share of samples is the bulk.
MOST_AT_THE_END = 0.5
LEVELS = (0.99, 0.998, 0.9996)
LEVELS_OF_FEW = (0.975, 0.99, 0.998)


def tail_thresholds(calibration: ArrayLike, *, tail: Tail = "upper") -> tuple[float, ...]:
    """Return the frozen thresholds for the tests, least extreme first; empty if the calibration is too small.

    They cut off the worst 1%, 0.2% and 0.04% of round 0, or 2.5%, 1% and 0.2% of a small calibration, as far as its
    samples reach. Where ties leave nothing beyond a level (a judge with ten grades whose worst grade holds 2%), the
    tail begins one grade lower; where the worst grade holds most answers, nothing lies beyond and no test has input.

    Args:
        calibration: round-0 scores [n_prompts, k], ideally of prompts outside the panel.
        tail: the bad end of the scores.

    Raises:
        InputError: scores of wrong shape or with infinite values.
    """
    sign = orientation(tail)
    scores = sign * as_scores(calibration, "calibration")
    values = np.unique(scores[~np.isnan(scores)])
    one_lower = len(values) > 1 and np.mean(scores[~np.isnan(scores)] == values[-1]) <= MOST_AT_THE_END
    many = np.count_nonzero(~np.isnan(scores)) >= MANY_SAMPLES
    found = []
    for level in LEVELS if many else LEVELS_OF_FEW:
        threshold = frozen_threshold(scores, level)
        if np.isnan(threshold):
            continue
        found.append(float(values[-2]) if threshold == values[-1] and one_lower else threshold)
    return tuple(sign * threshold for threshold in dict.fromkeys(found))


def half_of(baseline: ArrayLike, seed: int) -> np.ndarray:
    """Return a random half of the baseline's prompts, the same whatever the order of rows."""
    (panel,), _ = canonical(as_scores(baseline, "baseline"))
    return panel[np.random.default_rng(seed).permutation(len(panel))[: (len(panel) + 1) // 2]]
