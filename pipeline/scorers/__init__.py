"""Scorers: text in, one number a sample or a prompt out. A new one is a small file here and a line in ``build``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.engines.roles import Role
from pipeline.inputs.battery import Battery
from pipeline.inputs.classified import parse_classifier
from pipeline.inputs.scorer_names import split_name
from pipeline.scorers.base import PromptScorer, Sample, SampledPrompt, Score, Scorer, Worse
from pipeline.scorers.battery import BatteryLikelihood, battery_columns
from pipeline.scorers.classifier import Classifier, classifier_columns
from pipeline.scorers.degeneration import Degeneration
from pipeline.scorers.diversity import Diversity
from pipeline.scorers.gold import Gold
from pipeline.scorers.likelihood import Likelihood
from pipeline.scorers.refusal import Refusal, RefusalWhere
from pipeline.scorers.refusal_model import RefusalModel
from pipeline.scorers.text import Length, Loops

if TYPE_CHECKING:
    from pipeline.engines.classifier import SequenceClassifier

__all__ = [
    "PromptScorer",
    "Sample",
    "SampledPrompt",
    "Score",
    "Scorer",
    "Worse",
    "build",
    "columns",
]


def columns(names: Sequence[str], batteries: Sequence[Battery] = ()) -> dict[str, Worse]:
    """The scores that the listed scorers give, and which end of each is the bad one; no model is opened for it."""
    given: dict[str, Mapping[str, Worse]] = {
        "gold": Gold.columns,
        "refusal": Refusal.columns,
        "length": Length.columns,
        "loops": Loops.columns,
        "kl": {"kl": Likelihood.worse["kl"]},
        "nll_base": {"nll_base": Likelihood.worse["nll_base"]},
        "diversity": Diversity.columns,
        "likelihood": {name: "high" for battery in batteries for name in battery_columns(battery)},
        "degeneration": Degeneration.columns,
        "over_refusal": {"over_refusal": "high"},
        "under_refusal": {"under_refusal": "high"},
    }
    for entry in names:
        name, argument = split_name(entry)
        given[entry] = classifier_columns(parse_classifier(argument or "")) if name == "classifier" else given[name]
    return {column: worse for entry in names for column, worse in given[entry].items()}


def build(
    names: Sequence[str],
    policy: Role,
    base: Role,
    batteries: Sequence[Battery] = (),
    refusal_model: RefusalModel | None = None,
    classifiers: Mapping[str, SequenceClassifier] = MappingProxyType({}),
) -> list[Scorer | PromptScorer]:
    """The scorers that a recipe lists.

    Args:
        names: as in the recipe.
        policy: the checkpoint that is measured.
        base: the untouched model.
        batteries: of the ``likelihood`` scorer.
        refusal_model: weights of the scorers of refusals, the package's own when None.
        classifiers: the models of the ``classifier`` scorers, by their entry in the recipe.
    """
    plain: dict[str, Callable[[], Scorer]] = {
        "gold": Gold,
        "refusal": lambda: Refusal(refusal_model),
        "length": Length,
        "loops": Loops,
    }
    scorers: list[Scorer | PromptScorer] = [plain[name]() for name, _ in map(split_name, names) if name in plain]
    if likelihoods := [name for name in names if name in ("kl", "nll_base")]:
        scorers.append(Likelihood(likelihoods, policy, base))
    if "diversity" in names:
        scorers.append(Diversity())
    if "likelihood" in names:
        scorers.append(BatteryLikelihood(policy, batteries))
    if "degeneration" in names:
        scorers.append(Degeneration())
    for name, argument in map(split_name, names):
        if name in ("over_refusal", "under_refusal"):
            scorers.append(RefusalWhere(name, argument or "", refusal_model))
    scorers += [
        Classifier(parse_classifier(split_name(entry).argument or ""), classifiers[entry])
        for entry in names
        if entry in classifiers
    ]
    return scorers
