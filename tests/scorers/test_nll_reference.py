from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.engines.base import Adapter
from pipeline.engines.local import LocalEngine
from pipeline.engines.roles import Role
from pipeline.errors import InputError
from pipeline.inputs.question_sets import QuestionSet
from pipeline.inputs.reference_texts import ASKED, ReferenceText, load_reference
from pipeline.scorers.nll_reference import NllReference


def texts(folder: Path, text: str, name: str = "books.txt") -> QuestionSet[ReferenceText]:
    path = folder / name
    path.write_text(text)
    return load_reference(path)


def test_lines_and_columns_are_read(tmp_path: Path) -> None:
    found = texts(tmp_path, "One line.\n\nAnother.\nOne line.\n")
    assert (found.name, found.n_repeated) == ("nll_reference.books", 1)
    assert [(one.prompt, one.text, one.slice) for one in found.items] == [
        (ASKED, "One line.", ""),
        (ASKED, "Another.", ""),
    ]
    (pair,) = texts(tmp_path, '{"instruction": "Say it.", "output": " It. "}', "pairs.jsonl").items
    assert (pair.prompt, pair.text) == ("Say it.", "It.")
    with pytest.raises(InputError, match=r"odd\.jsonl:1: no column `text` or `response`.*found prompt, more"):
        texts(tmp_path, '{"prompt": "a", "more": 1}', "odd.jsonl")


@pytest.fixture(scope="module")
def engine(shared_data: Path, project: Path) -> LocalEngine:
    template = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    folder = str(shared_data / "models" / "stories260K-hf")
    return LocalEngine(folder, revision=None, dtype="float32", chat_template=template, batch_size=8)


def some(shared_data: Path, n: int) -> QuestionSet[ReferenceText]:
    found = load_reference(shared_data / "truthfulqa" / "en.json.gz")
    return found._replace(items=found.items[:n])


def test_it_is_what_transformers_computes_directly(engine: LocalEngine, shared_data: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = Role(engine, None)
    some_texts = some(shared_data, 4)
    scores = NllReference(base, base, some_texts).score_questions(some_texts.items)["nll_reference"]
    folder = engine.tokenizer.name_or_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for one, score in zip(some_texts.items, scores, strict=True):
        begun = f"{tokenizer.bos_token}User:\n{one.prompt}\n\nAssistant:\n"
        prompt = tokenizer(begun, add_special_tokens=False)["input_ids"]
        whole = tokenizer(begun + one.text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            log_p = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
        direct = -np.mean([float(log_p[at - 1, whole[at]]) for at in range(len(prompt), len(whole))])
        assert score.value == pytest.approx(direct, abs=1e-4)


def test_deciles_are_of_the_base_by_rank_and_those_given_are_kept(engine: LocalEngine, shared_data: Path) -> None:
    base, given = Role(engine, None), some(shared_data, 40)
    scorer = NllReference(base, base, given)
    items = scorer.questions.items
    values = [score.value or 0.0 for score in scorer.score_questions(items)["nll_reference"]]
    by_rank = [items[i].slice for i in np.argsort(values)]
    assert by_rank == [f"decile-{1 + i // 4:02d}" for i in range(40)]
    frozen = given._replace(items=tuple(one._replace(slice="decile-03") for one in given.items))
    assert NllReference(base, base, frozen).questions == frozen


def test_a_text_that_does_not_fit_has_neither_score_nor_decile(engine: LocalEngine, tmp_path: Path) -> None:
    found = texts(tmp_path, "Once upon a time.\n" + "there was a dog " * 400)
    base = Role(engine, None)
    scorer = NllReference(base, base, found)
    fits, over = scorer.score_questions(found.items)["nll_reference"]
    assert fits.value is not None
    assert (over.value, over.reason) == (None, "no tokens, or the text does not fit the context")
    assert [one.slice for one in scorer.questions.items] == ["decile-01", "no-decile"]


def test_another_policy_has_other_scores_in_the_same_deciles(
    sandbox_path: str, make_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    from pipeline.sandbox import prompts

    own = LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=16)
    found = texts(tmp_path, "\n".join(row["prompt"] for row in prompts("probe", 20)))
    base, policy = Role(own, None), Role(own, make_adapter(5, scale=0.2))
    scorers = [NllReference(role, base, found) for role in (base, policy)]
    asked = [scorer.questions.items for scorer in scorers]
    assert asked[0] == asked[1]
    before, after = (scorer.score_questions(asked[0])["nll_reference"] for scorer in scorers)
    assert all(abs((a.value or 0) - (b.value or 0)) > 1e-6 for a, b in zip(before, after, strict=True))
