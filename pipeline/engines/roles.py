"""Who speaks: policy, critic and reviser, each the policy itself, the frozen base, or a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.engines.base import Adapter, Completion, Engine, Request, Sampling, ScoreRequest


class Role(NamedTuple):
    """A model as it speaks in one role: an engine, bare or under an adapter."""

    engine: Engine
    adapter: Adapter | None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion a request, in order."""
        return self.engine.generate(requests, sampling, self.adapter)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Log-probabilities of given continuations, in order."""
        return self.engine.score(requests, self.adapter)


class Roles:
    """Opens every model once, when it is first asked for.

    Args:
        base: the model that is trained (Hub id or folder).
        revision: its Hub revision.
        dtype: precision of every model in this run; the same in all rounds, or rounds would not compare.
        quantization: of the base, transformers' ``BitsAndBytesConfig``, or None; the same in all rounds as well.
        chat_template: Jinja source for the base model, or None for its own.
        batch_size: rows decoded together.
    """

    def __init__(
        self,
        base: str,
        *,
        revision: str | None,
        dtype: str,
        quantization: Any,
        chat_template: str | None,
        batch_size: int,
    ) -> None:
        self._base = base
        self._revision = revision
        self._dtype = dtype
        self._quantization = quantization
        self._chat_template = chat_template
        self._batch_size = batch_size
        self._engines: dict[str, Engine] = {}
        self._seconds_of_closed = 0.0

    def base(self) -> Role:
        """The untouched model."""
        return self.policy(None)

    def policy(self, adapter: Adapter | None) -> Role:
        """The base under an adapter."""
        return Role(self._engine(self._base), adapter)

    def named(self, name: str, policy: Adapter | None) -> Role:
        """The role that a recipe names ``policy``, ``base``, or by a model's id or folder."""
        if name == "policy":
            return self.policy(policy)
        return self.base() if name == "base" else Role(self._engine(name), None)

    @property
    def seconds(self) -> float:
        """Wall time spent inside all models so far."""
        return self._seconds_of_closed + sum(engine.seconds for engine in self._engines.values())

    def close(self) -> None:
        """Give all memory back; models open again when next asked for."""
        self._seconds_of_closed = self.seconds
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _engine(self, model: str) -> Engine:
        if model not in self._engines:
            from pipeline.engines.local import LocalEngine

            own = model == self._base
            self._engines[model] = LocalEngine(
                model,
                revision=self._revision if own else None,
                dtype=self._dtype,
                quantization=self._quantization if own else None,
                chat_template=self._chat_template if own else None,
                batch_size=self._batch_size,
            )
        return self._engines[model]
