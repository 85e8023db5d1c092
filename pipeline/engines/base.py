"""What the pipeline asks of a model, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``"""

FinishReason = Literal["stop", "length", "prompt_too_long", "error"]


class Adapter(NamedTuple):
    """A LoRA adapter on the disk."""

    path: Path
    sha256: str


class Sampling(NamedTuple):
    """How tokens are drawn: temperature 0 takes the likeliest."""

    temperature: float
    top_p: float
    max_new_tokens: int


class Request(NamedTuple):
    """A dialogue to continue.

    Attributes:
        messages: of the dialogue.
        seed: that alone decides which of its answers is drawn.
        goes_on: whether the dialogue with its answer will be continued in turn, by the same model: an engine may keep
            what it computed of it.
    """

    messages: Sequence[Message]
    seed: int
    goes_on: bool = False


class Completion(NamedTuple):
    """An answer. ``text`` is meaningful for ``stop`` and ``length`` only; ``error`` says what went wrong otherwise.

    ``token_ids`` are as sampled, the end-of-turn token included; empty where a server keeps them to itself and says
    only how many there were (``counted``).
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    error: str | None = None
    counted: int | None = None

    @property
    def new_tokens(self) -> int:
        """How many tokens were sampled."""
        return len(self.token_ids) if self.counted is None else self.counted

    @property
    def defect(self) -> Literal["error", "prompt_too_long", "empty"] | None:
        """What makes this unusable as text, whatever it says; None if nothing does."""
        if self.finish_reason in ("error", "prompt_too_long"):
            return self.finish_reason
        return None if any(character.isalnum() for character in self.text) else "empty"


def too_long(prompt_tokens: int, wanted: int, context: int) -> Completion:
    """The completion of a prompt that leaves no room for an answer: it is not cut but refused."""
    return Completion(
        "",
        [],
        "prompt_too_long",
        prompt_tokens,
        f"{prompt_tokens} prompt tokens and {wanted} new ones do not fit the context of {context}",
    )


class ScoreRequest(NamedTuple):
    """A dialogue and the tokens of a continuation whose log-probabilities are wanted."""

    messages: Sequence[Message]
    token_ids: Sequence[int]


class Failed(str):
    """Why no attempt brought an answer: it stands in the place of log-probabilities, and as the reason of a score."""


class Engine(Protocol):
    """Runs one base model, bare or under an adapter."""

    @property
    def seconds(self) -> float:
        """Wall time spent inside this engine so far."""

    def generate(self, requests: Sequence[Request], sampling: Sampling, adapter: Adapter | None) -> list[Completion]:
        """One completion a request, in the order of the requests."""

    def score(self, requests: Sequence[ScoreRequest], adapter: Adapter | None) -> Sequence[list[float] | Failed]:
        """Natural-log probabilities (temperature 1) of each continuation's tokens, in the order of the requests.

        A request that does not fit the context has an empty list. One that failed in every attempt says so.

        Raises:
            LogProbabilityError: the model answers, but does not tell how likely a text is.
        """

    def encode_opening(self, text: str) -> list[int]:
        """Token ids of an answer that begins with ``text``, as they stand after a dialogue; no control token in them.

        Raises:
            InputError: the chat template writes an answer otherwise than it opens one, so there are no such ids.
        """

    def close(self) -> None:
        """Give the memory back."""
