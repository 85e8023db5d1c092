"""Dialogues to token ids and back, in one place, so that sampling and training read a dialogue in the same way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pipeline.engines.base import Message
from pipeline.errors import InputError

_JOINER = "\u2060"  # word joiner: no width, no control token contains it

_DATE = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_TIME = {"%H": "12", "%M": "00", "%S": "00"}
_WRITTEN = "".join(f" | replace('{directive}', '{text}')" for directive, text in (_DATE | _TIME).items())
_STOPPED_CLOCK = f"{{%- macro strftime_now(format) -%}}{{{{ format{_WRITTEN} }}}}{{%- endmacro %}}"
"""Fixes the date that templates take for today: the one that Llama's templates write where they have no clock."""

_LOOKS_LIKE_CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?(?:INST|SYS)\]"
    r"|<</?SYS>>|</?think>|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)
"""Spellings of control tokens in the model families that servers commonly run: ``<|end|>``, ``</s>``, ``[INST]``."""


def as_plain_text(text: str, tokenizer: Any) -> str:
    """The text with every control token's spelling broken by an invisible character.

    A template pastes contents into the string that is tokenised, so an answer that *spells* ``<|im_end|>``
    would otherwise end its own turn.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    # Longest first, so that no token is broken inside a longer one; ignoring case, since tokenizers may fold it.
    tokens = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, tokens)), re.IGNORECASE)
    return pattern.sub(lambda found: found[0][0] + _JOINER + found[0][1:], text) if tokens else text


def plain_messages(messages: Sequence[Message], tokenizer: Any) -> list[dict[str, str]]:
    """The dialogue with all contents made plain text."""
    return [{"role": m["role"], "content": as_plain_text(m["content"], tokenizer)} for m in messages]


def encode(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """Token ids of a dialogue, up to and including the opening of the answer.

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


def set_chat_template(tokenizer: Any, given: str | None) -> None:
    """Give a tokenizer the recipe's chat template, if there is one, and stop the clock in the template it then has.

    Templates that write the date (``strftime_now``) would write other prompts in another round or after a resume.

    Args:
        tokenizer: tokenizer to change in place.
        given: Jinja source to use instead of the tokenizer's own, or None.
    """
    template = tokenizer.chat_template if given is None else given
    if isinstance(template, str) and "strftime_now" in template and not template.startswith(_STOPPED_CLOCK):
        template = _STOPPED_CLOCK + template
    tokenizer.chat_template = template


def load_tokenizer(model: str, revision: str | None, chat_template: str | None) -> Any:
    """The tokenizer of a model (Hub id or folder) as dialogues are written with it; reads no weights.

    Args:
        model: Hub id or folder of the model.
        revision: its Hub revision.
        chat_template: Jinja source that replaces the tokenizer's own, or None.

    Raises:
        OSError: there is no such model, or it has no tokenizer.
        ValueError: its tokenizer is damaged, or none that transformers knows.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    set_chat_template(tokenizer, chat_template)
    return tokenizer


def own_template(model: str, revision: str | None) -> Any:
    """The chat template of a model's tokenizer, in transformers' form; reads no weights.

    Args:
        model: Hub id or folder of the model.
        revision: its Hub revision.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False).chat_template


def require_chat_template(tokenizer: Any) -> None:
    """Make sure that this model has a chat template to write dialogues with.

    Raises:
        InputError: there is no chat template.
    """
    if not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template, so a dialogue cannot be written for it. "
            "Give one in the recipe: `chat_template_path: constitutions/templates/chat_plain.jinja` "
            "(or a template of your own, or the folder of a model whose template fits). That is for the model being "
            "trained; a critic, reviser or judge needs a chat_template.jinja in its own folder."
        )


def as_plain_text_anywhere(text: str) -> str:
    """The text with the usual spellings of control tokens broken, for a model whose tokenizer is not available."""
    return _LOOKS_LIKE_CONTROL.sub(lambda found: found[0][0] + _JOINER + found[0][1:], text)


def encode_opening(text: str, tokenizer: Any) -> list[int]:
    """Token ids of an answer that begins with ``text``, as they appear after a dialogue.

    Tokenised within a dialogue, as in training: in many tokenizers a text by itself begins with a different token
    than after the opening of a turn (SentencePiece puts a blank before the first word).

    Raises:
        InputError: the chat template opens a written answer differently from one to be generated, or adds text to it.
    """
    asked: list[Message] = [{"role": "user", "content": "hello"}]  # any question will do: a turn ends after it
    prompt = encode(asked, tokenizer)
    answered = plain_messages([*asked, {"role": "assistant", "content": text}], tokenizer)
    try:
        ids = tokenizer.apply_chat_template(answered, continue_final_message=True, tokenize=True, return_dict=True)[
            "input_ids"
        ]
    except ValueError as error:
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template does not write the answer {text!r} as it is. Give one "
            "that does (`chat_template_path`)."
        ) from error
    if ids[: len(prompt)] != prompt:
        raise InputError(
            f"{tokenizer.name_or_path}: the prompt is not a prefix of prompt and answer in this chat "
            "template. Give a template that only appends (`chat_template_path`)."
        )
    opening = list(ids[len(prompt) :])
    inserted = tokenizer.added_tokens_decoder.get(opening[0]) if opening else None
    if (
        inserted is not None
        and opening[0] != tokenizer.unk_token_id
        and not text.lstrip().startswith(inserted.content)
    ):
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template writes {inserted.content} before an answer's text, so no "
            "answer begins with its own words. Give a template that writes none (`chat_template_path`, such as "
            "constitutions/templates/chat_qwen3_no_thinking.jinja), or another judge."
        )
    return opening


def decode(token_ids: Sequence[int], tokenizer: Any) -> str:
    """An answer's tokens as text, without control tokens and surrounding blanks."""
    text = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text).strip()


def end_tokens(config: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, according to the model's ``GenerationConfig`` (or None) and its tokenizer.

    Raises:
        InputError: there is none.
    """
    ends = config.eos_token_id if config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    found = {token for token in [*listed, tokenizer.eos_token_id] if token is not None}
    if not found:
        raise InputError(f"{tokenizer.name_or_path}: has no end-of-sequence token, so no answer could ever end.")
    return sorted(found)
