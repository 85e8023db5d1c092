"""The models behind policy, critic and reviser: the policy itself, the frozen base, or another model.

A model runs in this process (`local.py`), behind an address (`server.py`), or on a vLLM that the pipeline starts
(`vllm_process.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.engines.base import Adapter, Completion, Engine, Failed, Request, Sampling, ScoreRequest
from pipeline.engines.kept import KeptAnswers
from pipeline.engines.vllm_process import Vllm, VllmServers, find_python, vllm_version
from pipeline.errors import InputError
from pipeline.inputs.addresses import Address, is_address, read_addresses
from pipeline.inputs.model import pinned, resolve_model, split_revision

if TYPE_CHECKING:
    from pipeline.engines.server import Reader


class Role(NamedTuple):
    """A model in one role: an engine, bare or under an adapter."""

    engine: Engine
    adapter: Adapter | None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion per request, in order."""
        return self.engine.generate(requests, sampling, self.adapter)

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[list[float] | Failed]:
        """Log-probabilities of given continuations, in order."""
        return self.engine.score(requests, self.adapter)


class Serving(NamedTuple):
    """How servers are reached.

    Attributes:
        policy: addresses that serve the base model and its adapters; empty for a model in this process.
        vllm: settings of the vLLM that the pipeline starts for the base model and its adapters, or None.
        keep_running: whether that vLLM keeps running while the policy is trained.
        keys: host -> environment variable that holds the key.
        limit: most requests in flight per endpoint.
        attempts: attempts per request, the first included.
        timeout: seconds per attempt.
        kept: where the servers' answers are saved as they arrive, or None.
    """

    policy: Sequence[Address] = ()
    vllm: Vllm | None = None
    keep_running: bool = False
    keys: Mapping[str, str] = MappingProxyType({})
    limit: int = 256
    attempts: int = 6
    timeout: float = 600.0
    kept: KeptAnswers | None = None


IN_PROCESS = Serving()
"""Everything runs in this process."""


class Roles:
    """Opens each model once, when it is first asked for.

    Args:
        base: the model that is trained (Hub id or folder).
        revision: its Hub revision.
        dtype: precision of every model in this run; the same in all rounds, or they would not be comparable.
        quantization: transformers' ``BitsAndBytesConfig`` of the base, or None; also the same in all rounds.
        chat_template: Jinja source for the base model, or None for its own.
        batch_size: rows decoded together.
        prefix_memory: bytes per model for what was computed of dialogues that will be continued.
        serving: how servers are reached.
    """

    def __init__(
        self,
        base: str,
        *,
        revision: str | None,
        dtype: str,
        quantization: Any = None,
        chat_template: str | None,
        batch_size: int,
        prefix_memory: int = 0,
        serving: Serving = IN_PROCESS,
    ) -> None:
        self._base = base
        self._revision = revision
        self._dtype = dtype
        self._quantization = quantization
        self._chat_template = chat_template
        self._batch_size = batch_size
        self._prefix_memory = prefix_memory
        self._serving = serving
        self._engines: dict[str, Engine] = {}
        self._seconds_of_closed = 0.0

    def base(self) -> Role:
        """The untouched model."""
        return self.policy(None)

    def policy(self, adapter: Adapter | None) -> Role:
        """The base under an adapter."""
        return Role(self._engine(self._base), adapter)

    def named(self, name: str, policy: Adapter | None) -> Role:
        """The role that a recipe names: ``policy``, ``base``, a model (``MODEL@REVISION``) or its addresses."""
        if name == "policy":
            return self.policy(policy)
        if name == "base":
            return self.base()
        return Role(self._engine(name if is_address(name) else resolve_model(name)), None)

    def reach(self, name: str) -> None:
        """Make sure that the servers behind a role's name answer; nothing for a model that needs none started.

        Args:
            name: name of the role, as for ``named``.

        Raises:
            EngineError: they do not answer, or reject the key.
        """
        own = name in ("policy", "base")
        if is_address(name) or (own and self._serving.policy):
            from pipeline.engines.server import ServerEngine

            engine = self._engine(self._base if own else name)
            assert isinstance(engine, ServerEngine)
            engine.connect()

    @property
    def seconds(self) -> float:
        """Wall time spent inside all models so far."""
        return self._seconds_of_closed + sum(engine.seconds for engine in self._engines.values())

    def describe(self, name: str, device: str) -> dict[str, Any]:
        """Software, model and precision behind a role's name, for manifests.

        Args:
            name: name of the role, as for ``named``.
            device: device of the models in this process.
        """
        own = name in ("policy", "base")
        serving = self._serving
        if is_address(name):
            found = read_addresses(name)
            return {"name": "server", "model": found[0].model, "endpoints": [address.url for address in found]}
        if own and serving.policy:
            urls = [address.url for address in serving.policy]
            return {"name": "server", "model": serving.policy[0].model, "endpoints": urls}
        described = {"model": self._base if own else name, "dtype": self._dtype, "device": device}
        if own and serving.vllm is not None:
            return {"name": "vllm", "version": vllm_version(find_python(serving.vllm.python)), **described}
        return {"name": "transformers", **described}

    def forget_answers(self) -> None:
        """Drop the servers' saved answers: the round that they went into is complete."""
        if self._serving.kept is not None:
            self._serving.kept.drop()

    def make_room(self) -> None:
        """Free this node's memory for training, except that of a vLLM that is to keep running."""
        kept = self._serving.vllm is not None and self._serving.keep_running
        self._close_all_but({self._base} if kept else set())

    def close(self) -> None:
        """Free all memory; models open again when next asked for."""
        self._close_all_but(set())

    def _close_all_but(self, kept: set[str]) -> None:
        for name in [name for name in self._engines if name not in kept]:
            engine = self._engines.pop(name)
            self._seconds_of_closed += engine.seconds
            engine.close()

    def _engine(self, model: str) -> Engine:
        if model not in self._engines:
            self._engines[model] = self._open(model)
        return self._engines[model]

    def _open(self, model: str) -> Engine:
        if is_address(model):
            return self._served(model, partial(read_addresses, model), None, None)
        own = model == self._base
        if own:
            revision, template = self._revision, self._chat_template
        else:
            (model, revision), template = split_revision(model, "critic, reviser or judge"), None
            revision = pinned(model, revision)
        if own and (self._serving.policy or self._serving.vllm is not None):
            from pipeline.engines.server import load_reader

            read = partial(load_reader, model, revision=revision, chat_template=template)
            if self._serving.vllm is None:
                return self._served(model, lambda: self._serving.policy, read, None)
            servers = VllmServers(self._serving.vllm)
            return self._served(model, servers.addresses, read, servers)
        from pipeline.engines.local import LocalEngine

        return LocalEngine(
            model,
            revision=revision,
            dtype=self._dtype,
            quantization=self._quantization if own else None,
            chat_template=template,
            batch_size=self._batch_size,
            prefix_memory=self._prefix_memory,
        )

    def _served(
        self,
        model: str,
        addresses: Callable[[], Sequence[Address]],
        reader: Callable[[], Reader] | None,
        servers: VllmServers | None,
    ) -> Engine:
        if not all(find_spec(needed) for needed in ("openai", "aiohttp")):
            raise InputError("Models behind an address need the openai client: `pip install -e '.[server]'`.")
        from pipeline.engines.server import START_AGAIN, Patience, ServerEngine

        serving = self._serving
        return ServerEngine(
            model,
            addresses,
            reader=reader,
            key_variables=serving.keys,
            limit=serving.limit,
            patience=Patience(serving.attempts, serving.timeout),
            kept=serving.kept,
            stop=servers.stop if servers else None,
            advice=servers.advice if servers else START_AGAIN,
        )
