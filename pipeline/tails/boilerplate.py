"""Which of many things became more common between two rounds on the same prompts: paired tests, false discoveries."""

from __future__ import annotations

import numpy as np
import scipy


def sign_tests(rose: np.ndarray, fell: np.ndarray) -> np.ndarray:
    """The p-values of "no more common after than before", one-sided, exact, [n].

    A prompt counts once, however many samples it has: the test is valid where the two rounds of a prompt are
    exchangeable if nothing changed.

    Args:
        rose: number of prompts that have the thing in a larger share of their samples than before, [n].
        fell: number of prompts that have it in a smaller share, [n].
    """
    return np.where(rose + fell > 0, scipy.stats.binom.sf(rose - 1, rose + fell, 0.5), 1.0)


def discoveries(p_values: np.ndarray, rate: float = 0.05) -> np.ndarray:
    """Which tests to believe, so that on average at most a share ``rate`` of those are false; booleans, [n].

    Benjamini & Hochberg 1995; for positively dependent tests, as for phrases in one set of answers, Benjamini &
    Yekutieli 2001.
    """
    n = len(p_values)
    below = np.flatnonzero(np.sort(p_values) <= rate * np.arange(1, n + 1) / n) if n else np.zeros(0, dtype=int)
    return np.asarray(p_values <= np.sort(p_values)[below[-1]]) if len(below) else np.zeros(n, dtype=bool)
