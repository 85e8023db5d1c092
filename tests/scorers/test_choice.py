from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.inputs.choices import ChoiceQuestion, load_choices, read_choice
from pipeline.inputs.prompt_files import Row
from pipeline.inputs.question_sets import QuestionSet
from pipeline.scorers.base import QuestionScorer, Score
from pipeline.scorers.choice import Choice
from pipeline.scorers.rows import score_asked

EVALS = "model_written_evals"
FILES = {
    "labels": f"{EVALS}/advanced-ai-risk/power-seeking-inclination.jsonl.gz",
    "words": f"{EVALS}/persona/agreeableness.jsonl.gz",
    "knowledge": "truthfulqa/en.json.gz",
}


@pytest.fixture(scope="module", params=["tinystories-656k", "stories260K-hf"])
def policy(request: pytest.FixtureRequest, shared_data: Path, project: Path) -> Role:
    template = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    folder = str(shared_data / "models" / request.param)
    return Role(LocalEngine(folder, revision=None, dtype="float32", chat_template=template, batch_size=8), None)


def some(shared_data: Path, kind: str) -> list[ChoiceQuestion]:
    """Short questions of a real file, with as many options as there are."""
    items = [
        one for one in load_choices(shared_data / FILES[kind]).items if len(one.text(range(len(one.options)))) < 400
    ]
    return [next(one for one in items if len(one.options) == n) for n in sorted({len(one.options) for one in items})]


def set_of(questions: list[ChoiceQuestion]) -> QuestionSet[ChoiceQuestion]:
    return QuestionSet("choice.some", tuple(questions), 0, "")


def direct(question: ChoiceQuestion, policy: Role) -> tuple[float, float, float]:
    """Probability on the matching answers, on neither, and the greatest share, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = policy.engine.tokenizer.name_or_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    p = np.zeros(len(question.options))
    for order in question.orders():
        begun = f"{tokenizer.bos_token}User:\n{question.text(order).strip()}\n\nAssistant:\n"
        prompt = tokenizer(begun, add_special_tokens=False)["input_ids"]
        for i, answer in enumerate(question.answers(order)):
            whole = tokenizer(begun + answer, add_special_tokens=False)["input_ids"]
            assert whole[: len(prompt)] == prompt
            with torch.inference_mode():
                log_p = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
            steps = range(len(prompt), len(whole))
            p[i] += math.exp(sum(float(log_p[at - 1, whole[at]]) for at in steps)) / len(question.orders())
    return sum(p[i] for i in question.matching), 1 - p.sum(), p.max() / p.sum()


@pytest.mark.parametrize("kind", FILES)
def test_it_is_what_transformers_computes_directly(kind: str, policy: Role, shared_data: Path) -> None:
    questions = some(shared_data, kind)[:3]
    scores = Choice(policy, set_of(questions)).score_questions(questions)
    for i, question in enumerate(questions):
        matching, neither, greatest = direct(question, policy)
        assert scores["choice"][i].value == pytest.approx(matching, abs=1e-6, rel=1e-4)
        assert scores["choice.neither"][i].value == pytest.approx(neither, abs=1e-4)
        if question.knowledge:
            over = greatest - scores["choice.prefers"][i].value
            assert scores["choice.overconfidence"][i].value == pytest.approx(over, abs=1e-4)
        else:
            assert scores["choice.overconfidence"][i] is None


class Fixed:
    """An engine whose answers have given log-probabilities: by the option's text at the label asked for."""

    def __init__(self, log_p: dict[str, float], of_place: dict[str, float] | None = None) -> None:
        self.log_p, self.of_place = log_p, of_place or {}

    def encode_opening(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def score(self, requests: Any, adapter: None) -> list[list[float]]:
        return [
            self._row(request.messages[0]["content"], "".join(map(chr, request.token_ids))) for request in requests
        ]

    def _row(self, asked: str, answer: str) -> list[float]:
        if "too long" in asked:
            return []
        line = next((line for line in asked.split("\n") if line.startswith(f" {answer} ")), answer)
        return [self.log_p[line.removeprefix(f" {answer} ")], self.of_place.get(answer, 0.0)]


def ask(engine: Fixed, question: str, matching: str, other: str) -> dict[str, Score | None]:
    fields = {"question": question, "answer_matching_behavior": matching, "answer_not_matching_behavior": other}
    return score(engine, read_choice(Row("", fields)))


def score(engine: Fixed, question: ChoiceQuestion) -> dict[str, Score | None]:
    scorer = Choice(Role(engine, None), set_of([question]))  # type: ignore[arg-type]
    return {column: one for column, (one,) in scorer.score_questions([question]).items()}


def value(scores: dict[str, Score | None], column: str) -> float:
    score = scores[column]
    assert score is not None and score.value is not None
    return score.value


def test_a_liking_for_the_first_place_cancels_in_what_is_preferred() -> None:
    options = {"yes": math.log(0.2), "no": math.log(0.3)}
    scores = ask(Fixed(options, {"(B)": math.log(0.1)}), "Q\n (A) yes\n (B) no", "(B)", "(A)")
    # As listed 0.2 and 0.03, the other way round 0.02 and 0.3.
    assert value(scores, "choice") == pytest.approx((0.03 + 0.3) / 2)
    assert value(scores, "choice.neither") == pytest.approx(1 - (0.23 + 0.32) / 2)
    assert value(scores, "choice.prefers") == 1


def test_average_and_share_can_disagree() -> None:
    near = [ask(Fixed({"Yes": math.log(0.45), "No": math.log(0.5)}), "Q", "Yes", "No") for _ in range(3)]
    sure = ask(Fixed({"Yes": math.log(0.99), "No": math.log(0.01)}), "Q", "Yes", "No")
    assert np.mean([value(one, "choice") for one in [*near, sure]]) > 0.5
    assert np.mean([value(one, "choice.prefers") for one in [*near, sure]]) < 0.5


def test_a_draw_is_half_a_preference() -> None:
    scores = ask(Fixed({"Yes": math.log(0.4), "No": math.log(0.4)}), "Q", "Yes", "No")
    assert value(scores, "choice.prefers") == 0.5


def test_brier_score_of_what_is_known() -> None:
    targets = {"choices": ["true", "false", "odd"], "labels": [1, 0, 0]}
    question = read_choice(Row("", {"question": "Q", "mc1_targets": targets}))
    engine = Fixed({"true": math.log(0.2), "false": math.log(0.1), "odd": math.log(0.1)})
    scores = score(engine, question)
    # In shares 0.5, 0.25, 0.25.
    assert value(scores, "choice.brier") == pytest.approx(0.25 + 2 * 0.0625)
    assert value(scores, "choice.overconfidence") == pytest.approx(0.5 - 1)
    assert value(scores, "choice.neither") == pytest.approx(0.6)


def test_confidence_beyond_accuracy_is_overconfidence() -> None:
    """Sure at 0.9 of every answer, and right in three questions of four."""
    rng = np.random.default_rng(0)
    over = []
    for right in rng.permutation([True] * 30 + [False] * 10):
        targets = {"choices": ["this", "that"], "labels": [1, 0] if right else [0, 1]}
        question = read_choice(Row("", {"question": "Q", "mc1_targets": targets}))
        engine = Fixed({"this": math.log(0.9), "that": math.log(0.1)})
        over.append(value(score(engine, question), "choice.overconfidence"))
    assert np.mean(over) == pytest.approx(0.9 - 0.75)


@pytest.mark.parametrize(
    ("question", "answers", "reason"),
    [
        ("too long\n (A) yes\n (B) no", ("(A)", "(B)"), "the question does not fit the context"),
        ("Q", ("Yes", "Yes, but"), "the tokens of one option begin another, so they cannot be told apart"),
    ],
)
def test_a_failure_is_a_missing_value_with_its_reason(question: str, answers: tuple[str, str], reason: str) -> None:
    scores = ask(Fixed({"yes": -1.0, "no": -1.0}), question, *answers)
    missing = Score(None, reason)
    assert scores == {
        column: None if column in ("choice.brier", "choice.overconfidence") else missing for column in scores
    }


def test_questions_become_rows_under_a_name_of_their_own() -> None:
    fields = {"question": "Q", "answer_matching_behavior": "Yes", "answer_not_matching_behavior": "No", "slice": "s"}
    asked = read_choice(Row("", fields))
    engine = Fixed({"Yes": math.log(0.75), "No": math.log(0.25)})
    scorer = Choice(Role(engine, None), set_of([asked]))  # type: ignore[arg-type]
    assert isinstance(scorer, QuestionScorer)
    rows = score_asked([(scorer, asked)])
    assert [row["scorer"] for row in rows] == ["choice", "choice.prefers", "choice.neither"]
    identity = {"prompt_id": asked.id, "sample": 0, "probe_set": "choice.some", "slice": "s"}
    assert rows[0] == {**identity, "scorer": "choice", "score": pytest.approx(0.75), "reason": None}
