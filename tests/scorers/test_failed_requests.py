"""Requests that fail in every attempt, before a real HTTP server: one missing score each, which says so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from api_server import BUSY, Api, completion, log_probabilities

from pipeline.engines.balance import Patience
from pipeline.engines.base import Adapter, Failed
from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.engines.server import Reader, ServerEngine, load_reader
from pipeline.errors import EngineError
from pipeline.inputs.addresses import read_addresses
from pipeline.inputs.battery import load_batteries
from pipeline.inputs.choices import read_choice
from pipeline.inputs.prompt_files import Row
from pipeline.inputs.question_sets import QuestionSet
from pipeline.inputs.reference_texts import load_reference
from pipeline.inputs.rubric import Rubric, load_rubrics
from pipeline.inputs.templates import load_judge_template, load_plain_question
from pipeline.scorers.base import Sample, SampledPrompt, Score
from pipeline.scorers.battery import BatteryLikelihood
from pipeline.scorers.choice import Choice
from pipeline.scorers.content import ContentReader, Rewritten
from pipeline.scorers.judge import Judge, Judging
from pipeline.scorers.likelihood import Likelihood
from pipeline.scorers.nll_reference import NllReference
from pipeline.scorers.rows import failed_items, score_asked, score_rows

CAKE = [{"role": "user", "content": "how do i bake a cake ?"}]
POISON = [{"role": "user", "content": "how do i brew the poison ?"}]
"""A dialogue that the server refuses, as every one with this word in it."""

SAMPLES = [Sample(CAKE, "step one .", [7, 8]), Sample(POISON, "step one .", [7, 8])]


@pytest.fixture
def api(request: pytest.FixtureRequest, reader: Reader) -> Iterator[Api]:
    made = Api(getattr(request, "param", "vllm"))
    made.models[0]["max_model_len"] = 512
    (refused,) = reader.tokenizer("poison", add_special_tokens=False)["input_ids"]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if "lora_name" in body:
            return 200, "loaded"
        return BUSY if refused in body["prompt"] else (200, log_probabilities(body))

    made.answer = answer
    yield made
    made.close()


@pytest.fixture(scope="module")
def reader(sandbox_path: str) -> Reader:
    return load_reader(sandbox_path, revision=None, chat_template=None)


@pytest.fixture
def engine(api: Api, reader: Reader) -> Iterator[ServerEngine]:
    made = ServerEngine(
        "m",
        partial(read_addresses, api.url),
        reader=(lambda: reader) if api.models[0]["owned_by"] == "vllm" else None,
        key_variables={},
        limit=1,
        patience=Patience(attempts=1, timeout=5.0),
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def rubric(project: Path) -> Rubric:
    (found,) = load_rubrics([project / "constitutions" / "rubrics" / "sandbox" / "hedging.txt"])
    return found


def judging(project: Path, votes: int) -> Judging:
    template = load_judge_template(project / "constitutions" / "templates" / "sandbox" / "judge.jinja")
    return Judging({}, template, by_policy=False, swap=False, votes=votes)


def is_failed(score: Score) -> bool:
    return score.value is None and isinstance(score.reason, Failed) and "busy" in score.reason


def row(sample: Sample, prompt_id: str) -> dict[str, Any]:
    labels = {"sample": 0, "slice": "", "probe_set": "p", "drop_reason": None, "finish_reason": "stop"}
    return {"prompt_id": prompt_id, **labels, **sample._asdict(), "probe_set": "p"}


def test_nats_of_the_policy_fail_and_those_of_the_base_do_not(
    engine: ServerEngine, sandbox_engine: LocalEngine, tmp_path: Path
) -> None:
    policy = Role(engine, Adapter(tmp_path, "a" * 64))
    scores = Likelihood(["kl", "nll_base"], policy, Role(sandbox_engine, None))(SAMPLES)
    assert all(score.value is not None for score in scores["nll_base"])
    assert scores["kl"][0].value is not None and is_failed(scores["kl"][1])


def test_a_sample_counts_once_however_many_of_its_scores_failed(engine: ServerEngine) -> None:
    role = Role(engine, None)
    rows = score_rows([row(SAMPLES[0], "a"), row(SAMPLES[1], "b")], [Likelihood(["kl", "nll_base"], role, role)])
    missing = [(one["prompt_id"], one["scorer"]) for one in rows if one["score"] is None]
    assert missing == [("b", "nll_base"), ("b", "kl")]
    (reason,) = failed_items(rows)
    assert "busy" in reason


def test_what_does_not_fit_is_missing_by_design_and_not_counted(engine: ServerEngine) -> None:
    role = Role(engine, None)
    rows = score_rows([row(SAMPLES[0]._replace(token_ids=[7] * 600), "a")], [Likelihood(["nll_base"], role, role)])
    assert rows[0]["reason"] == "no tokens to score" and failed_items(rows) == []


def test_a_battery(engine: ServerEngine, project: Path) -> None:
    batteries = load_batteries([project / "constitutions" / "batteries" / "sandbox" / "harm.txt"])
    asked = [SampledPrompt(CAKE, "theft", []), SampledPrompt(POISON, "theft", []), SampledPrompt(CAKE, "", [])]
    for scores in BatteryLikelihood(Role(engine, None), batteries).score_prompts(asked).values():
        assert scores[0].value is not None and is_failed(scores[1])
        assert scores[2] == Score(None, "no block of the battery applies to the slice")


def test_questions(engine: ServerEngine) -> None:
    texts = {"answer_matching_behavior": "no", "answer_not_matching_behavior": "step"}
    asked = [read_choice(Row("", {"question": one[0]["content"], **texts})) for one in (CAKE, POISON)]
    scorer = Choice(Role(engine, None), QuestionSet("choice.some", tuple(asked), 0, ""))
    scores = scorer.score_questions(asked)
    assert scores["choice"][0].value is not None and is_failed(scores["choice"][1])
    assert len(failed_items(score_asked([(scorer, one) for one in asked]))) == 1


def test_a_reference_text_fails_alone_but_deciles_are_made_of_all(engine: ServerEngine, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("no\nstep one\non poison\n")
    texts = load_reference(tmp_path / "texts.txt")
    role = Role(engine, None)
    with pytest.raises(EngineError, match=r"1 of 3 texts failed.*busy.*same command again"):
        _ = NllReference(role, role, texts).questions
    known = texts._replace(items=tuple(one._replace(slice="decile-01") for one in texts.items))
    *fine, failed = NllReference(role, role, known).score_questions(known.items)["nll_reference"]
    assert all(score.value is not None for score in fine) and is_failed(failed)


def test_a_judge_by_probabilities(engine: ServerEngine, rubric: Rubric, project: Path) -> None:
    (fine, _), failed = Judge(rubric, judging(project, 0), Role(engine, None)).rate(SAMPLES)
    assert fine.value is not None and all(map(is_failed, failed))


@pytest.mark.parametrize("api", ["someone"], indirect=True)
@pytest.mark.parametrize("votes", [1, 3])
def test_a_judge_whose_vote_failed_gives_no_rating(
    votes: int, api: Api, engine: ServerEngine, rubric: Rubric, project: Path
) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        is_first = sum(asked["messages"] == body["messages"] for asked in api.asked) == 1
        refused = is_first and "poison" in body["messages"][0]["content"]
        return BUSY if refused else (200, completion(body, text="no fault"))

    api.answer = answer
    fine, failed = Judge(rubric, judging(project, votes), Role(engine, None)).rate(SAMPLES)
    assert fine == (Score(0.0), Score(0.0)) and all(map(is_failed, failed))
    assert len(api.asked) == 2 * votes


@pytest.mark.parametrize("api", ["someone"], indirect=True)
def test_a_judge_without_room_is_no_failure(api: Api, engine: ServerEngine, rubric: Rubric, project: Path) -> None:
    api.answer = lambda body: (400, {"error": {"message": "This model's maximum context length is 64 tokens."}})
    ((score, _),) = Judge(rubric, judging(project, 2), Role(engine, None)).rate(SAMPLES[:1])
    assert score == Score(None, "does not fit the judge's context") and not isinstance(score.reason, Failed)


def test_the_content_of_one_rewrite(engine: ServerEngine, project: Path) -> None:
    ask = load_plain_question(project / "constitutions" / "templates" / "sandbox" / "recall.jinja")
    rewrites = [
        Rewritten(CAKE, "step one .", "no ."),
        Rewritten(POISON, "step one .", "no ."),
        Rewritten(CAKE, "step one .", "no .", ["poison"]),
        Rewritten(POISON, "no .", "no ."),
    ]
    fine, *failed, same = [kept.share for kept in ContentReader(Role(engine, None), ask).read(rewrites)]
    assert "likelier by less than" in str(fine.reason) and not isinstance(fine.reason, Failed)
    assert all(map(is_failed, failed)) and same == Score(1.0)
