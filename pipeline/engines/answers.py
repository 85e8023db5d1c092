"""Answers of a role to prompts, as the identified rows that tables hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.engines.base import Request, Sampling
from pipeline.engines.roles import Role

if TYPE_CHECKING:
    from pipeline.inputs.prompts import Prompt


class Question(NamedTuple):
    """One sample to draw: a prompt, the index of the answer among the prompt's samples, and its random seed."""

    prompt: Prompt
    sample: int
    seed: int


def answer(
    role: Role, questions: Sequence[Question], sampling: Sampling, round_: int, model: str
) -> list[dict[str, Any]]:
    """One row per question, in order; ``drop_reason`` says why a row has no usable answer."""
    completions = role.generate([Request(q.prompt.messages, q.seed) for q in questions], sampling)
    return [
        {
            "prompt_id": question.prompt.id,
            "sample": question.sample,
            "round": round_,
            "seed": question.seed,
            "model": model,
            "adapter_sha256": role.adapter.sha256 if role.adapter else None,
            "finish_reason": completion.finish_reason,
            "error": completion.error,
            "prompt": list(question.prompt.messages),
            "slice": question.prompt.slice,
            "response": completion.text,
            "token_ids": completion.token_ids,
            "drop_reason": completion.defect,
            "prompt_tokens": completion.prompt_tokens,
            "new_tokens": completion.new_tokens,
        }
        for question, completion in zip(questions, completions, strict=True)
    ]


def failed_answers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reason of every row that no attempt could answer."""
    return [row["error"] for row in rows if row["drop_reason"] == "error"]
