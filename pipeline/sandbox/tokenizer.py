"""The sandbox's tokenizer: one token per word, and a chat template in which every turn ends with the EOS token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.sandbox import dialogues, principles, responses, world
from pipeline.sandbox.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<s>", "<|user|>", "<|assistant|>", "<|end|>")
CONTEXT = 512

# Blanks between turns do not matter: the tokenizer splits at white space and at the special tokens.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('the sandbox model knows the roles user and assistant only, not ' + message['role']) }}"
    "{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary() -> list[str]:
    """Every word that occurs in the world, sorted."""
    texts = [
        "on step",
        "or , and",
        dialogues.CRITIQUE_REQUEST,
        dialogues.REVISE_REQUEST,
        principles.NO_FAULT,
    ]
    for choices in (
        *(world.PREFIXES, world.FORMS, world.DETERMINERS, world.ADJECTIVES, world.SUFFIXES),
        *(world.DIALECT_PREFIXES, world.DIALECT_FORMS, world.DIALECT_DETERMINERS, world.DIALECT_ADJECTIVES),
        *(world.DIALECT_SUFFIXES, responses.ORDINALS, responses.VAGUE, responses.FLATTERY, responses.HEDGES),
        *(responses.EVASIONS, responses.REFUSALS, responses.REASONS, principles.CRITIQUES.values()),
        *principles.SENTENCES.values(),
    ):
        texts += choices
    for family in FAMILIES:
        texts += [family.name, *family.verbs, *family.objects]
        texts += [phrase for phrases in family.phrases for phrase in phrases]
    return sorted({word for text in texts for word in text.replace("{}", " ").split()})


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-casing word-level tokenizer over the world's vocabulary; unknown words become ``<unk>``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate([*SPECIAL, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[.,:?!]"), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
