"""Dialogues to token ids, in one place, so that sampling and training read a dialogue alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pipeline.engines.base import Message
from pipeline.errors import InputError

_JOINER = "\u2060"  # word joiner: no width, no control token contains it


def as_plain_text(text: str, tokenizer: Any) -> str:
    """The text with every control token's spelling broken by an invisible character.

    A template pastes contents into the string that is tokenised, so an answer that *spells* ``<|im_end|>``
    would otherwise end its own turn.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    # Longest first, so that a token within another is not what gets broken; in any case, since tokenizers may fold it.
    tokens = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, tokens)), re.IGNORECASE)
    return pattern.sub(lambda found: found[0][0] + _JOINER + found[0][1:], text) if tokens else text


def plain_messages(messages: Sequence[Message], tokenizer: Any) -> list[dict[str, str]]:
    """The dialogue with all contents made plain text."""
    return [{"role": m["role"], "content": as_plain_text(m["content"], tokenizer)} for m in messages]


def encode(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """Token ids of a dialogue, up to and with the opening of the answer.

    Raises:
        InputError: the tokenizer has no chat template, or the template refuses the dialogue.
    """
    require_chat_template(tokenizer)
    import jinja2

    try:
        encoded = tokenizer.apply_chat_template(
            plain_messages(messages, tokenizer), add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except jinja2.TemplateError as error:
        roles = [m["role"] for m in messages]
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template refuses a dialogue with the roles {roles}: {error}"
        ) from error
    return list(encoded["input_ids"])


def require_chat_template(tokenizer: Any) -> None:
    """Make sure that dialogues can be written for this model.

    Raises:
        InputError: there is no chat template.
    """
    if not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, so a dialogue cannot be written for it. "
            "Give one in the recipe: `chat_template_path: constitutions/templates/chat_plain.jinja` "
            "(or a template of your own, or the folder of a model whose template fits)."
        )
