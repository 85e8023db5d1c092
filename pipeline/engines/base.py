"""What the pipeline asks of a model, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``"""

FinishReason = Literal["stop", "length", "prompt_too_long", "error"]


class Adapter(NamedTuple):
    """A LoRA adapter on disk."""

    path: Path
    sha256: str


class Sampling(NamedTuple):
    """How tokens are drawn; temperature 0 is greedy."""

    temperature: float
    top_p: float
    max_new_tokens: int


class Request(NamedTuple):
    """A dialogue to continue.

    Attributes:
        messages: the dialogue so far.
        seed: random seed; with weights and prompt it fully determines the answer.
        goes_on: whether the same model will continue the dialogue after this answer; an engine may then keep what it
            computed for it.
    """

    messages: Sequence[Message]
    seed: int
    goes_on: bool = False


class Completion(NamedTuple):
    """An answer. ``text`` is meaningful for ``stop`` and ``length`` only; otherwise ``error`` says what went wrong.

    ``token_ids`` are as sampled, including the end-of-turn token; empty where a server does not return them and only
    reports their number (``counted``).
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    error: str | None = None
    counted: int | None = None

    @property
    def new_tokens(self) -> int:
        """Number of sampled tokens."""
        return len(self.token_ids) if self.counted is None else self.counted

    @property
    def defect(self) -> Literal["error", "prompt_too_long", "empty"] | None:
        """Why this is unusable as text, whatever it says; None if it is usable."""
        if self.finish_reason in ("error", "prompt_too_long"):
            return self.finish_reason
        return None if any(map(str.isalnum, self.text)) else "empty"


def too_long(prompt_tokens: int, wanted: int, context: int) -> Completion:
    """The completion of a prompt that leaves no room for an answer: it is refused, not truncated."""
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
        """One completion per request, in the order of the requests."""

    def score(self, requests: Sequence[ScoreRequest], adapter: Adapter | None) -> Sequence[list[float] | Failed]:
        """Natural-log probabilities (temperature 1) of each continuation's tokens, in the order of the requests.

        The list of a request that does not fit into the context is empty; one that failed in every attempt is
        ``Failed``.

        Raises:
            LogProbabilityError: the model generates text but does not report log-probabilities.
        """

    def encode_opening(self, text: str) -> list[int]:
        """Token ids of an answer that begins with ``text``, as they appear after a dialogue, without control tokens.

        Raises:
            InputError: the chat template opens a written answer differently from one to be generated, so there are no
                such ids.
        """

    def close(self) -> None:
        """Free the memory."""
