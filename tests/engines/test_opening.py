from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine
from pipeline.errors import InputError
from pipeline.inputs.battery import load_batteries
from pipeline.sandbox import prompts


def engine_of(path: Path | str, template: str | None) -> LocalEngine:
    return LocalEngine(str(path), revision=None, dtype="float32", chat_template=template, batch_size=4)


@pytest.fixture(scope="module")
def stories(shared_data: Path, project: Path) -> LocalEngine:
    template = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    return engine_of(shared_data / "models" / "stories260K-hf", template)


def as_trained(text: str, question: str, tokenizer: Any) -> list[int]:
    """The ids that an answer has in a whole dialogue, its end included."""
    asked = [{"role": "user", "content": question}]
    whole = tokenizer.apply_chat_template(
        [*asked, {"role": "assistant", "content": text}], tokenize=True, return_dict=True
    )["input_ids"]
    prompt = encode(asked, tokenizer)
    assert whole[: len(prompt)] == prompt
    return list(whole[len(prompt) :])


def test_the_sandbox_speaks_in_words(sandbox_engine: LocalEngine) -> None:
    text = "on poison : step one : boil the salt ."
    vocabulary = sandbox_engine.tokenizer.get_vocab()
    assert sandbox_engine.encode_opening(text) == [vocabulary[word] for word in text.split()]


def test_an_opening_is_tokenised_as_training_does_it_after_any_prompt(
    sandbox_engine: LocalEngine, stories: LocalEngine, project: Path
) -> None:
    questions = ["hello", "Is it safe?", "x\n\nUser:\ny", *(row["prompt"] for row in prompts("probe", 5))]
    for engine, file in ((sandbox_engine, "sandbox/harm.txt"), (stories, "harm.txt")):
        (battery,) = load_batteries([project / "constitutions" / "batteries" / file])
        block = battery.blocks[0]
        for text in (*block.undesired, *block.benign):
            opening = engine.encode_opening(text)
            for question in questions:
                whole = as_trained(text, question, engine.tokenizer)
                assert whole[: len(opening)] == opening
                assert whole[len(opening) :] == [engine.tokenizer.eos_token_id]


def test_a_text_by_itself_would_begin_with_another_token(stories: LocalEngine) -> None:
    alone = stories.tokenizer("Sure, here is", add_special_tokens=False)["input_ids"]
    assert stories.encode_opening("Sure, here is") != alone


@pytest.mark.parametrize("spelling", ["<|end|>", "yes <|end|> <|user|> how", "</s>", "<s>", "<|END|>"])
def test_no_control_token_is_in_an_opening(spelling: str, sandbox_engine: LocalEngine, stories: LocalEngine) -> None:
    for engine in (sandbox_engine, stories):
        control = set(engine.tokenizer.all_special_ids) - {engine.tokenizer.unk_token_id}
        assert not control & set(engine.encode_opening(spelling))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ bos_token }}{% if messages | length > 1 %}so: {% endif %}{{ messages[-1]['content'] }}", "not a prefix"),
        (
            "{% for m in messages %}<|{{ m['role'] }}|>{% if loop.first %}{{ m['content'] }}{% endif %}{% endfor %}",
            "as it",
        ),
    ],
)
def test_a_template_that_rewrites_dialogues_is_refused(template: str, message: str, sandbox_path: str) -> None:
    with pytest.raises(InputError, match=message):
        engine_of(sandbox_path, template).encode_opening("on poison :")


def test_an_opening_that_does_not_begin_with_its_text_is_refused(sandbox_path: str) -> None:
    own = engine_of(sandbox_path, None).tokenizer.chat_template
    written = "message['content']" if "message['content']" in own else 'message["content"]'
    assert own.count(written)
    end = engine_of(sandbox_path, None).tokenizer.eos_token
    thinking = own.replace(written, f"('{end} ' + {written} if message['role'] == 'assistant' else {written})")
    with pytest.raises(InputError, match=r"before an answer's text.*chat_template_path"):
        engine_of(sandbox_path, thinking).encode_opening("on poison : step one")
