"""A judge behind a real server: the same ratings as in this process, by probabilities and by votes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.errors import EngineError
from pipeline.inputs.rubric import Rubric, load_rubrics
from pipeline.inputs.templates import load_judge_template
from pipeline.sandbox.dialogues import case
from pipeline.scorers.base import Sample
from pipeline.scorers.judge import Judge, Judging

if TYPE_CHECKING:
    from pipeline.engines.server import ServerEngine
    from pipeline.inputs.addresses import Address

pytest.importorskip("pipeline.engines.server")

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def rubric(project: Path) -> Rubric:
    (found,) = load_rubrics([project / "constitutions" / "rubrics" / "sandbox" / "hedging.txt"])
    return found


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rng = Random(8)
    cases = [case(rng) for _ in range(24)]
    return [Sample([{"role": "user", "content": request.text}], said.text(), []) for request, said, _ in cases]


def judging(project: Path, votes: int) -> Judging:
    template = load_judge_template(project / "constitutions" / "templates" / "sandbox" / "judge.jinja")
    return Judging({}, template, by_policy=False, swap=False, votes=votes)


def ratings(judge: Judge, samples: list[Sample]) -> list[float]:
    return [score.value for score, _ in judge.rate(samples) if score.value is not None]


def test_vllm_gives_the_probabilities_of_this_process(
    served: Callable[..., ServerEngine],
    vllm_address: Address,
    sandbox_engine: LocalEngine,
    rubric: Rubric,
    samples: list[Sample],
    project: Path,
) -> None:
    engine = served(f"{vllm_address.url}#{vllm_address.model}")
    there, here = (
        ratings(Judge(rubric, judging(project, 0), Role(one, None)), samples) for one in (engine, sandbox_engine)
    )
    assert len(there) == len(samples) and 0.1 < np.mean(there) < 0.9
    assert there == pytest.approx(here, abs=1e-4)


def test_a_server_without_probabilities_is_asked_for_votes(
    served: Callable[..., ServerEngine],
    transformers_address: Address,
    sandbox_engine: LocalEngine,
    rubric: Rubric,
    samples: list[Sample],
    project: Path,
) -> None:
    engine = served(f"{transformers_address.url}#{transformers_address.model}", tokens=False, limit=4)
    with pytest.raises(EngineError, match="`judge_votes: 5`"):
        Judge(rubric, judging(project, 0), Role(engine, None)).rate(samples)
    voted = ratings(Judge(rubric, judging(project, 4), Role(engine, None)), samples)
    exact = ratings(Judge(rubric, judging(project, 0), Role(sandbox_engine, None)), samples)
    assert len(voted) == len(exact) == len(samples)
    assert np.abs(np.subtract(voted, exact)).mean() < 0.05
