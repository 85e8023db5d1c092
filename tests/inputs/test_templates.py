from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.inputs.constitution import Principle
from pipeline.inputs.templates import VARIABLES, load_templates

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "constitutions" / "templates"
DATA = ROOT.parent / "shared" / "data"

SENTENCE = Principle("s", "Be {{ kind }}.", None, None, 1.0, (), 1)
PAIR = Principle("p", None, "Critique # it {% now %}.", "Revise {{ it }}.", 1.0, (), 1)


@pytest.fixture
def folder(tmp_path):
    for name in VARIABLES:
        (tmp_path / f"{name}.jinja").write_text(f"{name}: {{{{ principle.text or principle.critique }}}}")
    return tmp_path


@pytest.mark.parametrize("name", [".", "standalone"])
def test_shipped_templates_wrap_a_sentence_and_take_a_pair_as_it_is(name):
    templates = load_templates(SHIPPED / name)
    sight = {"prompt": "PROMPT", "response": "RESPONSE"}
    for principle, critique, revise in (
        (SENTENCE, SENTENCE.text, SENTENCE.text),
        (PAIR, PAIR.critique, PAIR.revise),
    ):
        rendered = [
            templates.critique(principle, **sight),
            templates.rewrite(principle, critique="CRITIQUE", **sight),
            templates.rewrite_without_critique(principle, **sight),
        ]
        assert all(asked in text for asked, text in zip([critique, revise, revise], rendered, strict=True))
        assert not any("None" in text for text in rendered)
        if name == "standalone":
            assert all("PROMPT" in text and "RESPONSE" in text for text in rendered)
            assert ["CRITIQUE" in text for text in rendered] == [False, True, False]
        elif principle is PAIR:
            assert rendered == [PAIR.critique, PAIR.revise, PAIR.revise]
        else:
            assert all(len(text) > len(SENTENCE.text) + 50 for text in rendered)


def test_texts_are_values_and_never_templates(folder):
    (folder / "rewrite.jinja").write_text("{{ prompt }}|{{ response }}|{{ critique }}|{{ principle.text }}")
    templates = load_templates(folder)
    evil = "{{ 7 * 7 }}{% for x in y %}{# note #}<b>&amp;"
    text = templates.rewrite(SENTENCE, prompt=evil, response=evil, critique=evil)
    assert text == f"{evil}|{evil}|{evil}|Be {{{{ kind }}}}."


def test_what_quotes_is_rendered_for_every_answer_and_what_does_not_for_every_principle(folder):
    (folder / "critique.jinja").write_text("{{ principle.id }} {{ response }}")
    templates = load_templates(folder)
    for _ in range(2):
        for principle in (SENTENCE, PAIR):
            for response in ("one", "two"):
                assert templates.critique(principle, prompt="?", response=response) == f"{principle.id} {response}"
                rewrite = templates.rewrite(principle, prompt="?", response=response, critique=response)
                assert rewrite == f"rewrite: {principle.text or principle.critique}"


def test_digest_covers_every_template(folder):
    digests = {load_templates(folder).sha256}
    for name in VARIABLES:
        path = folder / f"{name}.jinja"
        path.write_text(path.read_text() + " more")
        digests.add(load_templates(folder).sha256)
    assert len(digests) == 4
    assert load_templates(folder).sha256 in digests


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        (
            "critique",
            "one\n{% if principle.text %}\ntwo",
            r"critique.jinja:2: template error: .*end of template",
        ),
        ("rewrite", "one\ntwo {{ principle.text | nosuch }}", r"rewrite.jinja:2: template error: .*nosuch"),
        ("rewrite", "\n\n{{ principel.text }}", r"rewrite.jinja:3: unknown variable `principel`; .*critique"),
        (
            "critique",
            "{% if 0 %}{{ critique }}{% endif %}x",
            r"critique.jinja:1: unknown variable `critique`",
        ),
        ("critique", "a\n{{ principle.txt }}", r"critique.jinja:2: fails for .*no attribute 'txt'"),
        ("critique", "a\n{{ principle.name }}", r"critique.jinja:2: fails for .*no attribute 'name'"),
        ("critique", "a\n\n{{ 1 + prompt }}", r"critique.jinja:3: fails for the principle `sentence`"),
        ("critique", "{{ prompt.__class__.__mro__ }}", r"critique.jinja:1: fails for .*unsafe"),
        ("critique", "{% include 'other' %}", r"critique.jinja:1: fails for"),
        ("critique", "{# nothing #}", r"critique.jinja: renders nothing"),
    ],
)
def test_faults_name_file_and_line(folder, name, source, fault):
    (folder / f"{name}.jinja").write_text(source)
    with pytest.raises(InputError, match=fault):
        load_templates(folder)


def test_missing_and_unreadable_files(folder, tmp_path):
    (folder / "rewrite.jinja").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"rewrite.jinja: cannot be read as UTF-8"):
        load_templates(folder)
    (folder / "rewrite.jinja").unlink()
    with pytest.raises(InputError, match=r"rewrite.jinja: no such template; a template folder holds critique.jinja"):
        load_templates(folder)


def test_a_template_for_pairs_only_refuses_a_sentence_when_it_meets_one(folder):
    (folder / "critique.jinja").write_text("Please:\n{{ principle.critique }}")
    templates = load_templates(folder)
    assert templates.critique(PAIR, prompt="", response="") == "Please:\n" + str(PAIR.critique)
    with pytest.raises(InputError, match=r"critique.jinja:2: fails for the principle `s`: a value that this"):
        templates.critique(SENTENCE, prompt="", response="")


@pytest.mark.skipif(not DATA.exists(), reason=f"no real tokenizers at {DATA}")
@pytest.mark.parametrize(
    "model",
    ["models/stories260K-hf", "models/tinystories-656k", "tokenizers/gpt2", "tokenizers/minueza-chat"],
)
def test_plain_chat_template_with_real_tokenizers(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DATA / model)
    tokenizer.chat_template = (SHIPPED / "chat_plain.jinja").read_text()
    dialogue = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": "Hello: you"},
        {"role": "user", "content": "How so?"},
    ]
    for messages in (dialogue[1:2], dialogue[:2], dialogue):
        prompt = _encode(tokenizer, messages, add_generation_prompt=True)
        for answer in (
            "well",
            " \nwell",
            ": )",
            "",
            "1. a\n2. b",
            "?",
            "é",
            "…",
            "🙂",
            "Assistant:\nx",
            "\\",
        ):
            whole = _encode(tokenizer, [*messages, {"role": "assistant", "content": answer}])
            assert whole[: len(prompt)] == prompt
            assert whole[-1] == tokenizer.eos_token_id
            assert whole[len(prompt) : -1].count(tokenizer.eos_token_id) == 0
            n_answers = 1 + sum(m["role"] == "assistant" for m in messages)
            assert whole[0] == tokenizer.bos_token_id
            shared = tokenizer.bos_token_id == tokenizer.eos_token_id  # GPT-2 has one token for both
            assert whole.count(tokenizer.bos_token_id) == 1 + shared * n_answers
            # An answered dialogue goes on with the same tokens.
            longer = [
                *messages,
                {"role": "assistant", "content": answer},
                {"role": "user", "content": "And?"},
            ]
            assert _encode(tokenizer, longer)[: len(whole)] == whole


def _encode(tokenizer, messages, **options) -> list[int]:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]
