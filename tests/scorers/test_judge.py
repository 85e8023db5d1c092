from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from pipeline.engines.base import ScoreRequest
from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.inputs.rubric import Rubric, load_rubrics, parse_rubric
from pipeline.inputs.templates import load_judge_template
from pipeline.sandbox import gold
from pipeline.sandbox.dialogues import case
from pipeline.scorers.base import Sample
from pipeline.scorers.judge import Judge, Judging

RUBRIC = """\
name: tale
version: 1
worse: high

question: Is it a tale?
reworded: Does it tell a story?

rating: 0 = no
says: The
rating: 1 = partly
says: He
says: She
rating: 4 = yes
says: Once upon
says: One
"""


def judging(template: Path, **how: object) -> Judging:
    return Judging({}, load_judge_template(template), **{"by_policy": False, "swap": False, "votes": 0} | how)


@pytest.fixture(scope="module", params=["stories260K-hf", "tinystories-656k"])
def role(request: pytest.FixtureRequest, shared_data: Path, project: Path) -> Role:
    template = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    folder = str(shared_data / "models" / request.param)
    return Role(LocalEngine(folder, revision=None, dtype="float32", chat_template=template, batch_size=4), None)


def tale() -> Rubric:
    return parse_rubric(RUBRIC, "tale.txt")


SHORT = "{{ prompt }}|{{ response }}|{{ question }}{% for r in ratings %} {{ r.label }}{% endfor %}"


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "judge.jinja"
    path.write_text(SHORT)
    return path


SAMPLES = [
    Sample([{"role": "user", "content": q}], a, [])
    for q, a in [("Who?", "A cat."), ("Why not", "No."), ("x", "the dog ran")]
]


def direct(role: Role, rubric: Rubric, asked: str) -> tuple[float, float]:
    """Expectation and mass by transformers alone: one text at a time, the whole softmax."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = role.engine.tokenizer.name_or_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = role.engine.tokenizer.chat_template
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    turns = [{"role": "user", "content": asked}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    start, total, mean = prompt["input_ids"], 0.0, 0.0
    for rating in rubric.ratings:
        for text in rating.says:
            said = [*turns, {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(said, continue_final_message=True, tokenize=True, return_dict=True)
            ids = ids["input_ids"]
            with torch.inference_mode():
                log_p = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            p = float(torch.exp(sum(log_p[i - 1, ids[i]] for i in range(len(start), len(ids)))))
            total, mean = total + p, mean + p * rating.value
    return mean / total, total


def test_it_is_the_expectation_that_transformers_computes_directly(
    role: Role, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.scorers.judge._LEAST_MASS", 0.0)  # tiny models give no rating to speak of
    rubric = tale()
    scores = Judge(rubric, judging(short), role)(SAMPLES)
    for i, sample in enumerate(SAMPLES):
        asked = f"{sample.prompt[0]['content']}|{sample.response}|{rubric.question} 0 1 4"
        mean, mass = direct(role, rubric, asked)
        assert scores["judge.tale"][i].value == pytest.approx(mean, abs=1e-4)
        assert scores["judge.tale.unparsable"][i].value == pytest.approx(1 - mass, abs=1e-4)
    values = [score.value for score in scores["judge.tale"]]
    assert len(set(values)) == 3 and not any(value in (0.0, 1.0, 4.0) for value in values)


def test_swapping_takes_the_mean_of_both_orders_and_again_asks_in_other_words(
    role: Role, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.scorers.judge._LEAST_MASS", 0.0)
    rubric = tale()
    values = [score.value for score, _ in Judge(rubric, judging(short, swap=True), role).rate(SAMPLES)]
    once = [score.value for score, _ in Judge(rubric, judging(short), role).rate(SAMPLES)]
    again = [score.value for score, _ in Judge(rubric, judging(short), role).rate(SAMPLES, again=True)]
    for i, sample in enumerate(SAMPLES):
        start = f"{sample.prompt[0]['content']}|{sample.response}|"
        up = direct(role, rubric, f"{start}{rubric.question} 0 1 4")[0]
        down = direct(role, rubric, f"{start}{rubric.question} 4 1 0")[0]
        assert values[i] == pytest.approx((up + down) / 2, abs=1e-4)
        assert once[i] == pytest.approx(up, abs=1e-4)
        assert again[i] == pytest.approx(direct(role, rubric, f"{start}{rubric.reworded} 4 1 0")[0], abs=1e-4)


def test_a_reply_that_is_no_rating_is_missing_and_counted(role: Role, short: Path) -> None:
    rubric = parse_rubric(RUBRIC.replace("says: One\n", "").replace("The", "qqzx").replace("She", "vvk"), "x")
    nothing = rubric.__class__(
        **{**vars(rubric), "ratings": tuple(r._replace(says=(f"{r.label}zzqxj",)) for r in rubric.ratings)}
    )
    scores = Judge(nothing, judging(short), role)(SAMPLES[:1])
    assert scores["judge.tale"][0].value is None
    assert scores["judge.tale"][0].reason.startswith("unparsable: only 0.")
    assert scores["judge.tale.unparsable"][0].value == pytest.approx(1.0, abs=0.01)


# -- the sandbox's own critic as a judge -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def critic(sandbox_path: str) -> Role:
    return Role(LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=64), None)


@pytest.fixture(scope="module")
def sandbox(project: Path) -> tuple[Path, dict[str, Rubric]]:
    folder = project / "constitutions"
    rubrics = load_rubrics(sorted((folder / "rubrics" / "sandbox").glob("*.txt")))
    return folder / "templates" / "sandbox" / "judge.jinja", {rubric.name: rubric for rubric in rubrics}


def answers(n: int, seed: int) -> list[Sample]:
    rng = Random(seed)
    cases = [case(rng) for _ in range(n)]
    return [Sample([{"role": "user", "content": r.text}], a.text(), []) for r, a, _ in cases]


def auc(values: list[float], labels: list[bool]) -> float:
    good, bad = ([v for v, label in zip(values, labels, strict=True) if label == side] for side in (False, True))
    return float(np.mean([(b > g) + (b == g) / 2 for b in bad for g in good]))


@pytest.mark.parametrize(
    ("name", "field", "n", "least"),
    [
        ("harm", "harm", 60, 0.9),
        ("hedging", "hedging", 120, 0.97),
        ("flattery", "flattery", 120, 0.97),
        ("evasiveness", "evasion", 120, 0.97),
    ],
)
def test_ratings_agree_with_the_truth(
    name: str, field: str, n: int, least: float, critic: Role, sandbox: tuple[Path, dict[str, Rubric]]
) -> None:
    template, rubrics = sandbox
    samples = answers(n, seed=5)
    scores = Judge(rubrics[name], judging(template), critic)(samples)
    truth = [getattr(gold(s.prompt[-1]["content"], s.response), field) > 0 for s in samples]
    assert 5 <= sum(truth) <= n - 5
    values = [score.value for score in scores[f"judge.{name}"]]
    assert all(0 <= value <= 1 for value in values)
    assert auc(values, truth) >= least
    assert np.mean([score.value for score in scores[f"judge.{name}.unparsable"]]) < 0.05


def test_votes_come_near_the_expectation_and_are_the_same_every_time(
    critic: Role, sandbox: tuple[Path, dict[str, Rubric]]
) -> None:
    template, rubrics = sandbox
    samples = answers(24, seed=6)
    by_votes = Judge(rubrics["hedging"], judging(template, votes=8), critic)
    exact = [s.value for s, _ in Judge(rubrics["hedging"], judging(template), critic).rate(samples)]
    drawn = [s.value for s, _ in by_votes.rate(samples)]
    assert all(value * 8 == int(value * 8) for value in drawn)
    assert np.abs(np.subtract(drawn, exact)).mean() < 0.05
    assert [s.value for s, _ in by_votes.rate(samples[::-1])] == drawn[::-1]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("4", 4.0),
        (" **4**.", 4.0),
        ("4/9", 4.0),
        ("44", None),
        ("it is 4", None),
        ("", None),
        ("-1", -1.0),
        ("0.", 0.0),
    ],
)
def test_a_reply_is_read_by_how_it_begins(reply: str, value: float | None, critic: Role, short: Path) -> None:
    text = "name: n\nversion: 1\nworse: high\n\nquestion: a\nreworded: b\nrating: -1 = w\nrating: 0 = x\nrating: 4 = y"
    assert Judge(parse_rubric(text, "x"), judging(short, votes=1), critic)._read(reply) == value


def test_an_answer_without_room_has_no_rating(critic: Role, sandbox: tuple[Path, dict[str, Rubric]]) -> None:
    template, rubrics = sandbox
    long = Sample([{"role": "user", "content": "brew a potion ?"}], "potion " * 520, [])
    score, unparsable = Judge(rubrics["hedging"], judging(template), critic).rate([long])[0]
    assert score.value is None and unparsable.value is None and "context" in score.reason


def test_a_policy_that_judges_itself_says_so(critic: Role, sandbox: tuple[Path, dict[str, Rubric]]) -> None:
    template, rubrics = sandbox
    judge = Judge(rubrics["hedging"], judging(template, by_policy=True), critic)
    assert judge.columns == {"self_judge.hedging": "high", "self_judge.hedging.unparsable": "high"}
    assert list(judge(answers(1, 0))) == list(judge.columns)


def test_continuations_of_one_dialogue_are_read_off_one_pass_and_come_out_the_same(critic: Role) -> None:
    dialogue = [{"role": "user", "content": "how do i brew a potion ?"}]
    engine = critic.engine
    tails = [[7, 8, 9], [7, 8, 10], [7, 8], [7, 9], [11], [12], [11, 12]]
    together = engine.score([ScoreRequest(dialogue, tail) for tail in tails], None)
    apart = [engine.score([ScoreRequest(list(dialogue), tail)], None)[0] for tail in tails]
    for one, other in zip(together, apart, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert [len(row) for row in together] == [len(tail) for tail in tails]
