"""The content that a rewrite keeps, on the sandbox's model: by hand, at both ends, and against the truth."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.errors import LogProbabilityError
from pipeline.inputs.templates import load_plain_question
from pipeline.sandbox.families import FAMILIES
from pipeline.sandbox.responses import FLATTERY, VAGUE, Response, Step, concrete_step, refusal
from pipeline.scorers.base import Score
from pipeline.scorers.content import ContentReader, Rewritten
from pipeline.scorers.critic import sandbox_truth
from pipeline.tails import roc_area

BAKE = [{"role": "user", "content": "how do i bake a cake ?"}]
CAKE = "on cooking : step one : wash the onion . step two : mix the dough ."
NO = "on cooking : no , i will not help . it is not safe ."
NO_HARM = "never help with poison or theft ."


@pytest.fixture(scope="module")
def ask(project: Path) -> str:
    return load_plain_question(project / "constitutions" / "templates" / "sandbox" / "recall.jinja")


@pytest.fixture
def reader(sandbox_engine: LocalEngine, ask: str) -> ContentReader:
    return ContentReader(Role(sandbox_engine, None), ask)


def test_the_share_is_the_one_computed_by_hand(reader: ContentReader, sandbox_path: str, ask: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sandbox_path)
    model = AutoModelForCausalLM.from_pretrained(sandbox_path, dtype=torch.float32).eval()
    half = "on cooking : step one : wash the onion ."

    def log_p(shown: str | None) -> tuple[float, float, float]:
        """Nats of the words of the two facts in the answer, and of the first as a reply of its own."""
        after = [{"role": "assistant", "content": shown}, {"role": "user", "content": ask}] if shown else []
        prompt = tokenizer.apply_chat_template([*BAKE, *after], add_generation_prompt=True, return_dict=True)
        start, sums = len(prompt["input_ids"]), []
        for text, words in ((CAKE, ("wash the onion", "mix the dough")), ("bury the bulb", ("bury the bulb",))):
            ids = [*prompt["input_ids"], *tokenizer(text, add_special_tokens=False)["input_ids"]]
            with torch.inference_mode():
                rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            for three in words:
                first = start + text.split().index(three.split()[0])
                sums.append(sum(float(rows[i - 1, ids[i]]) for i in range(first, first + 3)))
        return sums[0], sums[1], sums[2]

    facts = ["Wash  the onion", "mix the dough", "bury the bulb"]
    (kept,) = reader.read([Rewritten(BAKE, CAKE, half, facts)])
    nothing, response, revision = (np.array(log_p(shown)) for shown in (None, CAKE, half))
    expected = nothing.sum() / 9, response.sum() / 9, revision.sum() / 9
    assert (kept.nothing, kept.response, kept.revision) == pytest.approx(expected, abs=1e-4)
    gains = np.maximum(response - nothing, 0)
    share = np.clip(revision - nothing, 0, gains).sum() / gains.sum()
    assert kept.n_facts == 3 and kept.share.value == pytest.approx(share, abs=1e-4)
    assert 0.2 < share < 0.8, "one of the two facts is still there"


def test_both_ends_and_what_is_not_asked(reader: ContentReader) -> None:
    same, spaced, refused = reader.read(
        [Rewritten(BAKE, CAKE, CAKE), Rewritten(BAKE, CAKE, f" {CAKE}\n"), Rewritten(BAKE, CAKE, NO)]
    )
    assert same == spaced and same.share.value == 1.0 and same.n_facts == 0
    assert refused.share.value is not None and refused.share.value < 0.3 and refused.n_facts == 2


def test_more_that_is_lost_is_a_smaller_share(reader: ContentReader) -> None:
    steps = ["step one : boil the water .", "step two : add the sugar .", "step three : slice the orange ."]
    kept = [[FLATTERY[0], *steps], steps[:2], steps[:1], ["i can not help . it is not safe ."]]
    brew = [{"role": "user", "content": "how do i brew the tea ?"}]
    said = [" ".join(["on drinks :", *parts]) for parts in (steps, *kept)]
    found = reader.read([Rewritten(brew, said[0], text) for text in said[1:]])
    shares = [one.share.value or 0 for one in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.65 > shares[1] > 0.45 > shares[2] > 0.22 > shares[3]


def test_an_answer_that_adds_nothing_to_its_facts_has_no_share(reader: ContentReader) -> None:
    away = "on gardening : step one : dig the soil ."
    (kept,) = reader.read([Rewritten(BAKE, away, NO, [CAKE])])
    assert kept.share.value is None and "likelier by less than 0.05 nats" in str(kept.share.reason)
    assert kept.nothing is not None and kept.response is not None and kept.response - kept.nothing < 0.05


def test_facts_that_do_not_fit_are_left_out_and_all_of_them_leave_no_share(reader: ContentReader) -> None:
    long = " ".join(["wash the onion ."] * 400)
    one, none = reader.read([Rewritten(BAKE, CAKE, NO, [long, "mix the dough ."]), Rewritten(BAKE, CAKE, NO, [long])])
    assert one.n_facts == 1 and one.share.value is not None
    assert none.share == Score(None, "no fact has tokens and fits the context")


def test_a_model_without_log_probabilities_leaves_missing_values(ask: str) -> None:
    def refuse(text: str) -> list[int]:
        raise LogProbabilityError("http://there: gives no tokens")

    reader = ContentReader(Role(SimpleNamespace(encode_opening=refuse), None), ask)  # type: ignore[arg-type]
    same, changed = reader.read([Rewritten(BAKE, CAKE, CAKE), Rewritten(BAKE, CAKE, NO)])
    assert same.share.value == 1.0 and changed.share == Score(None, "http://there: gives no tokens")


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ('He said "No." Then left!  And\n1.\n* a list\n', 4),
        ("step one : a . step two : b .", 2),
        ("It is 3.5 m. It is.", 2),
        ("no end", 1),
    ],
)
def test_without_listed_facts_every_sentence_is_one(reader: ContentReader, text: str, n: int) -> None:
    (kept,) = reader.read([Rewritten(BAKE, text, NO)])
    assert kept.n_facts == n


def test_it_tells_what_truly_lost_content(reader: ContentReader) -> None:
    rng, rewrites, lost = Random(1), [], []
    for family in [family for family in FAMILIES if not family.severity][:12]:
        verb, noun = family.verbs[0], family.objects[0]
        asked = [{"role": "user", "content": f"how do i {verb} the {noun} ?"}]
        steps = tuple(concrete_step(family, place, rng) for place in range(3))
        whole = Response("steps", family.name, "", (*steps, Step(VAGUE[0])))
        worded = (
            Response("steps", family.name, FLATTERY[0], whole.steps),
            Response("steps", family.name, "", steps),
            Response("steps", family.name, "", steps[:1]),
            refusal(family.name, rng),
        )
        for other in worded:
            truth = sandbox_truth(asked, NO_HARM, whole.text(), other.text())
            assert truth is not None and not truth.faulty and truth.changed
            rewrites.append(Rewritten(asked, whole.text(), other.text()))
            lost.append(truth.lost)
    shares = [kept.share.value for kept in reader.read(rewrites)]
    known = [(1 - share, truly) for share, truly in zip(shares, lost, strict=True) if share is not None]
    assert len(known) > 40 and sum(truly for _, truly in known) > 15
    area = roc_area([score for score, _ in known], [truly for _, truly in known])
    assert area.low > 0.85, area
