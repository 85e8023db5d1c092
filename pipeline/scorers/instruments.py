"""What the scorers of a recipe read besides the answers: files that stay the same over a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.inputs.battery import Battery
from pipeline.inputs.classified import ClassifierTemplate
from pipeline.inputs.question_sets import QuestionSet
from pipeline.scorers.judge import Judging
from pipeline.scorers.refusal_model import RefusalModel


@dataclass(frozen=True)
class Instruments:
    """What the scorers can read.

    Attributes:
        batteries: batteries of the ``likelihood`` scorer.
        questions: question sets of the scorers that ask some, by their entry in the recipe.
        judging: how the ``judge`` scorers judge, if there are any.
        refusal_model: weights of the refusal scorers; the package's own when None.
        classifier_template: template of what ``classifier`` scorers are shown, if the recipe names one.
    """

    batteries: tuple[Battery, ...] = ()
    questions: Mapping[str, QuestionSet[Any]] = field(default_factory=dict)
    judging: Judging | None = None
    refusal_model: RefusalModel | None = None
    classifier_template: ClassifierTemplate | None = None
