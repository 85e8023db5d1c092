"""Scorers: text in, one number a sample out. A new one is a small file here and a line in ``build``."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engines.roles import Role
from pipeline.scorers.base import Sample, Score, Scorer, Worse
from pipeline.scorers.gold import Gold
from pipeline.scorers.likelihood import Likelihood
from pipeline.scorers.refusal import Refusal
from pipeline.scorers.text import Length, Loops

__all__ = ["NAMES", "Sample", "Score", "Scorer", "Worse", "build", "column_names"]

NAMES = ("gold", "refusal", "length", "loops", "kl", "nll_base")
"""What a recipe may list under ``scorers``."""


def column_names(names: Sequence[str]) -> list[str]:
    """The names of the scores that the listed scorers give."""
    return [column for name in names for column in (Gold.columns if name == "gold" else [name])]


def build(names: Sequence[str], policy: Role, base: Role) -> list[Scorer]:
    """The scorers that a recipe lists."""
    plain: dict[str, type[Gold] | type[Refusal] | type[Length] | type[Loops]] = {
        "gold": Gold,
        "refusal": Refusal,
        "length": Length,
        "loops": Loops,
    }
    scorers: list[Scorer] = [plain[name]() for name in names if name in plain]
    likelihoods = [name for name in names if name in ("kl", "nll_base")]
    return [*scorers, Likelihood(likelihoods, policy, base)] if likelihoods else scorers
