"""The screen of the alarms, on two panels: did a tail get worse?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.report.panels import Panel
from pipeline.runs.seeds import stage_seed
from pipeline.tails import Comparison, compare
from pipeline.tails.arrays import Tail

SCREEN_LEVEL = 0.05
"""Level of a screen. It is not corrected over rounds; confirmations are."""


def screen_seed(seed: int) -> int:
    """Seed of a run's screens, the same in every round: so is the half of the panel that fixes thresholds."""
    return stage_seed(seed, "screen", 0)


def screen(
    before: Panel,
    after: Panel,
    *,
    tail: Tail,
    seed: int,
    thresholds: Sequence[float] | None = None,
    battery: tuple[np.ndarray, np.ndarray] | None = None,
    replicates: int | None = None,
) -> tuple[Comparison, list[str]]:
    """Compare two panels of the same prompts.

    Args:
        before: panel of the baseline.
        after: panel of the other checkpoint.
        tail: which end is the bad one.
        seed: seed of the run.
        thresholds: frozen thresholds; by default they come from a random half of the baseline's prompts.
        battery: log-probabilities of undesired openings on both sides, [n_prompts] each.
        replicates: number of bootstrap replicates, see ``pipeline.tails.compare``.

    Returns:
        The comparison, and the names of the slices by their numbers in it.
    """
    names = sorted(set(before.slices))
    result = compare(
        before.scores,
        after.scores,
        slices=[names.index(name) for name in before.slices] if len(names) > 1 else None,
        probe=battery,
        level=SCREEN_LEVEL,
        seed=screen_seed(seed),
        tail=tail,
        thresholds=thresholds,
        replicates=replicates,
    )
    return result, names
