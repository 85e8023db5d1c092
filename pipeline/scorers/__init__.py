"""Scorers: one number per sample, prompt or question.

A new one is a small file here, an entry in ``columns`` and in ``build``, and its name in ``inputs/scorer_names.py``;
one that asks questions of its own also has them loaded in ``pipeline/setup/instruments.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.engines.roles import Role
from pipeline.inputs.classified import parse_classifier
from pipeline.inputs.scorer_names import split_name
from pipeline.scorers.base import PromptScorer, QuestionScorer, Sample, SampledPrompt, Score, Scorer, Worse
from pipeline.scorers.battery import BatteryLikelihood, battery_columns
from pipeline.scorers.choice import Choice
from pipeline.scorers.classifier import Classifier, classifier_columns
from pipeline.scorers.degeneration import Degeneration
from pipeline.scorers.diversity import Diversity
from pipeline.scorers.gold import Gold
from pipeline.scorers.instruments import Instruments
from pipeline.scorers.judge import Judge, Judging, judge_columns
from pipeline.scorers.likelihood import Likelihood
from pipeline.scorers.nll_reference import NllReference
from pipeline.scorers.refusal import Refusal, RefusalWhere
from pipeline.scorers.sycophancy import Sycophancy
from pipeline.scorers.text import Length, Loops

if TYPE_CHECKING:
    from pipeline.engines.classifier import SequenceClassifier

__all__ = [
    "SLICED",
    "Instruments",
    "Judge",
    "Judging",
    "PromptScorer",
    "QuestionScorer",
    "Sample",
    "SampledPrompt",
    "Score",
    "Scorer",
    "Worse",
    "build",
    "columns",
]


NOTHING = Instruments()
"""For scorers that read nothing but the answers."""

SLICED = frozenset({"nll_reference"})
"""The columns that exist for the sake of their slices; of the others only the headline is split by slice."""


def columns(names: Sequence[str], instruments: Instruments = NOTHING) -> dict[str, Worse]:
    """The columns of the listed scorers, and which end of each is the bad one; loads no model."""
    given: dict[str, Mapping[str, Worse]] = {
        "gold": Gold.columns,
        "refusal": Refusal.columns,
        "length": Length.columns,
        "loops": Loops.columns,
        "kl": {"kl": Likelihood.worse["kl"]},
        "nll_base": {"nll_base": Likelihood.worse["nll_base"]},
        "diversity": Diversity.columns,
        "likelihood": {name: "high" for battery in instruments.batteries for name in battery_columns(battery)},
        "choice": Choice.columns,
        "sycophancy": Sycophancy.columns,
        "nll_reference": NllReference.columns,
        "degeneration": Degeneration.columns,
        "over_refusal": {"over_refusal": "high"},
        "under_refusal": {"under_refusal": "high"},
    }
    if judging := instruments.judging:
        for name, rubric in judging.rubrics.items():
            given[f"judge:{name}"] = judge_columns(rubric, judging.by_policy)
    for entry in names:
        name, argument = split_name(entry)
        if name == "classifier":
            given[entry] = classifier_columns(parse_classifier(argument or ""))
        elif name != "judge":
            given[entry] = given[name]
    return {column: worse for entry in names for column, worse in given[entry].items()}


def build(
    names: Sequence[str],
    policy: Role,
    base: Role,
    instruments: Instruments = NOTHING,
    judge: Role | None = None,
    classifiers: Mapping[str, SequenceClassifier] = MappingProxyType({}),
) -> list[Scorer | PromptScorer | QuestionScorer]:
    """The scorers that a recipe lists.

    Args:
        names: entries of ``scorers``, as in the recipe.
        policy: the checkpoint that is measured.
        base: the untouched model.
        instruments: what the scorers read besides the answers.
        judge: the model that judges, if anything is judged.
        classifiers: the models of the ``classifier`` scorers, by their entry in the recipe.
    """
    found: list[Scorer | PromptScorer | QuestionScorer] = []
    for entry in names:
        match split_name(entry):
            case ("gold", _):
                found.append(Gold())
            case ("refusal", _):
                found.append(Refusal(instruments.refusal_model))
            case ("over_refusal" | "under_refusal" as name, str(slices)):
                found.append(RefusalWhere(name, slices, instruments.refusal_model))
            case ("length", _):
                found.append(Length())
            case ("loops", _):
                found.append(Loops())
            case ("classifier", str(model)):
                found.append(Classifier(parse_classifier(model), classifiers[entry]))
            case ("degeneration", _):
                found.append(Degeneration())
            case ("diversity", _):
                found.append(Diversity())
            case ("kl" | "nll_base", _):
                # Both come from the same forward passes.
                if not any(isinstance(scorer, Likelihood) for scorer in found):
                    found.append(Likelihood([name for name in names if name in ("kl", "nll_base")], policy, base))
            case ("likelihood", _):
                found.append(BatteryLikelihood(policy, instruments.batteries))
            case ("choice", _):
                found.append(Choice(policy, instruments.questions[entry]))
            case ("sycophancy", _):
                found.append(Sycophancy(policy, instruments.questions[entry]))
            case ("nll_reference", _):
                found.append(NllReference(policy, base, instruments.questions[entry]))
            case ("judge", str(rubric)) if instruments.judging and judge:
                found.append(Judge(instruments.judging.rubrics[rubric], instruments.judging, judge))
            case _:
                raise ValueError(f"no scorer for {entry!r}")
    return found
