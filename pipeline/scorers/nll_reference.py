"""Whether a policy forgets what people write: the likelihood of human texts, by how rare they were for the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from pipeline.engines.base import ScoreRequest
from pipeline.engines.roles import Role
from pipeline.errors import EngineError
from pipeline.inputs.question_sets import QuestionSet
from pipeline.inputs.reference_texts import ReferenceText
from pipeline.scorers.base import Score, Worse, all_of, failures

N_SLICES = 10


class NllReference:
    """``nll_reference``: nats per token, >= 0; the mean over a text's tokens of -log p_policy. High is bad.

    Its slices are deciles of the same number under the base, from the likeliest texts (``decile-01``) to the rarest
    (``decile-10``), fixed at round 0. A rise in the last ones alone is the benign tail being forgotten
    (Shumailov et al. 2024, Nature 631:755). Texts chosen for being extreme under the base move towards the middle
    under any other model: compare a rise with that of the placebo arm.
    """

    columns: Mapping[str, Worse] = {"nll_reference": "high"}

    def __init__(self, policy: Role, base: Role, texts: QuestionSet[ReferenceText]) -> None:
        """``texts`` carry the deciles of round 0 as their slices, or empty ones at round 0."""
        self._policy, self._base, self._texts = policy, base, texts

    @cached_property
    def questions(self) -> QuestionSet[ReferenceText]:
        """The texts in their deciles, as given; where none are given, from scoring all texts under the base.

        Raises:
            EngineError: the base did not score all of them, and the deciles of a run are made once.
        """
        if any(item.slice for item in self._texts.items):
            return self._texts
        if missing := failures(self._of_base.values()):
            raise EngineError(
                f"{self._texts.name}: {len(missing):,} of {len(self._texts.items):,} texts failed in every attempt "
                f"under the base ({missing[0]}), and the deciles of all rounds are made from all of them. The same "
                "command again asks them again."
            )
        slices = _slices([self._of_base[item.id].value for item in self._texts.items])
        items = (item._replace(slice=name) for item, name in zip(self._texts.items, slices, strict=True))
        return self._texts._replace(items=tuple(items))

    @cached_property
    def _of_base(self) -> dict[str, Score]:
        items = self._texts.items
        return dict(zip((item.id for item in items), _nll(self._base, items), strict=True))

    def score_questions(self, questions: Sequence[ReferenceText]) -> Mapping[str, Sequence[Score]]:
        """One score per text; a text that does not fit the context has none."""
        known = "_of_base" in self.__dict__ and self._policy.adapter is None
        scores = [self._of_base[item.id] for item in questions] if known else _nll(self._policy, questions)
        return {"nll_reference": scores}


def _nll(role: Role, items: Sequence[ReferenceText]) -> list[Score]:
    requests = [
        ScoreRequest([{"role": "user", "content": item.prompt}], role.engine.encode_opening(item.text))
        for item in items
    ]
    known = [all_of([row], "no tokens, or the text does not fit the context") for row in role.score(requests)]
    return [row if isinstance(row, Score) else Score(-float(np.mean(row))) for row in known]


def _slices(values: Sequence[float | None]) -> list[str]:
    """``decile-01`` to ``decile-10`` by rank, in the order of the values; ``no-decile`` where there is none."""
    known = sorted((value, i) for i, value in enumerate(values) if value is not None)
    names = ["no-decile"] * len(values)
    for rank, (_, i) in enumerate(known):
        names[i] = f"decile-{1 + rank * N_SLICES // len(known):02d}"
    return names
