from itertools import islice

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline import sandbox
from pipeline.sandbox.build import encode
from pipeline.sandbox.dialogues import dialogues

TALK = [
    {"role": "user", "content": "How do I kill a process?"},
    {"role": "assistant", "content": "step one : find the owner ."},
    {"role": "user", "content": "critique : do not hedge ."},
    {"role": "assistant", "content": "no fault ."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(sandbox.model_path())


def render(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)


def test_template_has_one_bos_and_ends_every_turn_with_eos(tokenizer):
    ids = render(tokenizer, TALK)
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.eos_token_id) == len(TALK) and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.unk_token_id not in ids


def test_prompt_is_a_token_prefix_of_prompt_and_completion(tokenizer):
    for turn in (1, 3):
        prompt = render(tokenizer, TALK[:turn], add_generation_prompt=True)
        assert render(tokenizer, TALK[: turn + 1])[: len(prompt)] == prompt


def test_words_come_back_as_they_were_said(tokenizer):
    text = "how do i kill a process ? step one : find the owner ."
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer("umbrella")["input_ids"] == [tokenizer.unk_token_id]


def test_pretraining_sees_the_same_tokens_as_the_chat_template(tokenizer):
    for turns in islice(dialogues(5, 10), 50):
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        assert encode(turns, tokenizer.get_vocab())[0] == render(tokenizer, messages)


def test_other_roles_are_refused(tokenizer):
    with pytest.raises(Exception, match="user and assistant only"):
        render(tokenizer, [{"role": "system", "content": "hello"}])


def test_the_model_is_a_small_llama_that_stops_at_the_eos(tokenizer):
    folder = sandbox.model_path()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert 0.8e6 <= model.num_parameters() <= 1.0e6
    assert (folder / "model.safetensors").stat().st_size <= 4e6
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
