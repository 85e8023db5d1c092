"""Scorers: text in, one number a sample or a prompt out. A new one is a small file here and a line in ``build``."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engines.roles import Role
from pipeline.inputs.battery import Battery
from pipeline.scorers.base import PromptScorer, Sample, SampledPrompt, Score, Scorer, Worse
from pipeline.scorers.battery import BatteryLikelihood, battery_columns
from pipeline.scorers.diversity import Diversity
from pipeline.scorers.gold import Gold
from pipeline.scorers.likelihood import Likelihood
from pipeline.scorers.refusal import Refusal
from pipeline.scorers.text import Length, Loops

__all__ = [
    "NAMES",
    "PromptScorer",
    "Sample",
    "SampledPrompt",
    "Score",
    "Scorer",
    "Worse",
    "build",
    "column_names",
]

NAMES = ("gold", "refusal", "length", "loops", "kl", "nll_base", "diversity", "likelihood")
"""What a recipe may list under ``scorers``."""


def column_names(names: Sequence[str], batteries: Sequence[Battery] = ()) -> list[str]:
    """The names of the scores that the listed scorers give."""
    several = {
        "gold": list(Gold.columns),
        "diversity": list(Diversity.columns),
        "likelihood": [name for battery in batteries for name in battery_columns(battery)],
    }
    return [column for name in names for column in several.get(name, [name])]


def build(
    names: Sequence[str], policy: Role, base: Role, batteries: Sequence[Battery] = ()
) -> list[Scorer | PromptScorer]:
    """The scorers that a recipe lists.

    Args:
        names: as in the recipe.
        policy: the checkpoint that is measured.
        base: the untouched model.
        batteries: of the ``likelihood`` scorer.
    """
    plain: dict[str, type[Gold] | type[Refusal] | type[Length] | type[Loops]] = {
        "gold": Gold,
        "refusal": Refusal,
        "length": Length,
        "loops": Loops,
    }
    scorers: list[Scorer | PromptScorer] = [plain[name]() for name in names if name in plain]
    if likelihoods := [name for name in names if name in ("kl", "nll_base")]:
        scorers.append(Likelihood(likelihoods, policy, base))
    if "diversity" in names:
        scorers.append(Diversity())
    if "likelihood" in names:
        scorers.append(BatteryLikelihood(policy, batteries))
    return scorers
