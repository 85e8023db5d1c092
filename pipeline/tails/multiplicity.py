"""Many tests and many rounds: how p-values are combined, and how the level is spent."""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import InputError

# Of a run's 5%: what confirmations may spend over all rounds, and what is left for the e-process.
CONFIRMATION_LEVEL = 0.04
E_PROCESS_LEVEL = 0.01


def simes(p_values: Sequence[float]) -> float:
    """Return the p-value of "none of these": min over i of m p_(i) / i (Simes 1986, Biometrika 73:751).

    Valid for positively dependent tests, such as those of one panel, and never above Bonferroni's.
    """
    ordered = np.sort(np.asarray(p_values, dtype=np.float64))
    return float(min(1.0, (ordered * len(ordered) / np.arange(1, len(ordered) + 1)).min()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for all of them together, in the given order (Holm 1979, Scand. J. Stat. 6:65)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def confirmation_alpha(round_: int, horizon: int, *, level: float = CONFIRMATION_LEVEL) -> float:
    """Return the level that the confirmations of one round may spend: level / horizon, whatever was found before.

    With at most this in each of `horizon` rounds, the chance that any of them is a false red is at most `level`
    (union bound: no assumption on how rounds depend on one another).

    Raises:
        InputError: a round beyond the declared horizon.
    """
    if not 1 <= round_ <= horizon:
        raise InputError(
            f"round {round_}: the horizon was declared as {horizon} rounds, and their level is spent; "
            "declare a longer horizon before the first round, or read later rounds as screening only"
        )
    return level / horizon
