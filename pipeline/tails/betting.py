"""Bets against "the tail did not get worse": evidence that may be checked after every round, indefinitely."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import InputError
from pipeline.tails.arrays import Tail, as_scores, canonical, flatten, orientation

# Stakes of the bets, which are averaged: none of them has to be the right one.
STAKES = (0.5, 0.9)


def log_e_value(baseline: ArrayLike, current: ArrayLike, threshold: float, *, tail: Tail = "upper") -> float:
    """Return the log of an e-value against "the rate beyond the threshold did not rise", from one set of prompts.

    E = mean over stakes of prod_i (1 + stake d_i), with d_i in [-1, 1] the change in prompt i's fraction of samples
    beyond the threshold (betting: Waudby-Smith & Ramdas 2024, JRSS-B 86:1). Its mean is at most 1 if E d <= 0 and
    prompts are independent draws, with any dependence within a prompt and any number of prompts; so P(E >= 1/alpha) is
    at most alpha. The threshold must not come from these prompts.

    Args:
        baseline: round 0's scores [n_prompts, k].
        current: scores of the same prompts now.
        threshold: where the tail begins, in the units of the scores.
        tail: the bad end of the scores.

    Returns:
        0 (no evidence) where no prompt has samples on both sides.

    Raises:
        InputError: as for `compare`, or a threshold that is not a finite number.
    """
    if not np.isfinite(threshold):
        raise InputError(f"threshold: expected a finite number, got {threshold}")
    sign = orientation(tail)
    (before, after), _ = canonical(sign * as_scores(baseline, "baseline"), sign * as_scores(current, "current"))
    then, now = (flatten(side).fraction_above(sign * threshold) for side in (before, after))
    logs = [float(np.log1p(stake * (now - then)).sum()) for stake in STAKES]
    return float(np.logaddexp.reduce(logs) - math.log(len(STAKES)))


class EProcess(NamedTuple):
    """Evidence over rounds, each on prompts never used before, that the tail got worse at some round.

    M_t = sum_{s <= t} prod_{r=s}^{t} E_r / (s (s + 1)) + 1 / (t + 1): a share of the stake is held back for each round
    in which the drift may start, so that early good rounds do not drown a late onset. If the tail deteriorates in no
    round, M is a nonnegative supermartingale that starts at 1, and P(M_t >= 1 / alpha for any t) <= alpha (Ville 1939;
    start mixtures: Shin, Ramdas & Rinaldo, E-detectors). The prompts of a round must be fresh: if the panel's own
    prompts are used every round, the product means nothing.
    """

    rounds: int = 0
    log_running: float = -math.inf  # log of the sum over starts so far
    log_peak: float = 0.0  # log of the largest M so far: an alarm stays raised

    def update(self, log_e: float) -> "EProcess":
        """Return the process after another round, given the log of its e-value."""
        t = self.rounds + 1
        running = float(np.logaddexp(self.log_running, -math.log(t * (t + 1)))) + log_e
        return EProcess(t, running, max(self.log_peak, self._replace(rounds=t, log_running=running).log_value))

    @property
    def log_value(self) -> float:
        """Log of the current M."""
        return float(np.logaddexp(self.log_running, -math.log(self.rounds + 1)))

    def alarm(self, alpha: float) -> bool:
        """Whether M ever reached 1 / alpha."""
        return self.log_peak >= -math.log(alpha)
