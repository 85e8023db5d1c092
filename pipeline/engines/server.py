"""The engine over OpenAI-compatible servers: vLLM by token ids, any other by its chat endpoint."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pipeline.engines.balance import AttemptFailed, Balancer, Patience
from pipeline.engines.base import Adapter, Completion, Failed, FinishReason, Request, Sampling, ScoreRequest, too_long
from pipeline.engines.chat import (
    as_plain_text_anywhere,
    decode,
    encode,
    encode_opening,
    end_tokens,
    set_chat_template,
)
from pipeline.engines.endpoint import Card, Endpoint, says_too_long
from pipeline.engines.kept import KeptAnswers, answer_key
from pipeline.errors import EngineError, InputError, LogProbabilityError, first_line
from pipeline.inputs.addresses import Address

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("pipeline")

_INTRODUCTIONS = 3
"""Attempts to learn what a server serves."""


class Reader(NamedTuple):
    """How dialogues become token ids for a model, and its answers text.

    Attributes:
        tokenizer: with the chat template to use.
        ends: tokens that end an answer.
        context: most tokens of prompt and answer together, or None.
    """

    tokenizer: Any
    ends: list[int]
    context: int | None


def load_reader(model: str, *, revision: str | None, chat_template: str | None) -> Reader:
    """The reader of a model, by Hub id or folder; no weights are loaded.

    Raises:
        OSError: there is no such model, or it has no tokenizer.
        InputError: no token ends its answers.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    set_chat_template(tokenizer, chat_template)
    config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    try:
        generation = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # not every model has one
        generation = GenerationConfig.from_model_config(config)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Reader(tokenizer, end_tokens(generation, tokenizer), context)


class ServerEngine:
    """A model behind one endpoint or several that share the load.

    vLLM is sent token ids and asked for token ids: dialogues are read here, by the same tokenizer and template as in
    training, so no token is doubled and no text becomes a control token. Other servers are sent dialogues; they give
    neither token ids nor log-probabilities, and control tokens are broken by their usual spellings.

    Args:
        model: behind the servers, as the recipe names it.
        addresses: gives the servers; called when they are first needed.
        reader: of the model; None asks a vLLM where it has the model from, and is not needed for other servers.
        key_variables: host -> environment variable that holds its key.
        limit: requests that one endpoint may have at once.
        patience: of every request.
        kept: where answers are written down as they come, and those of an earlier launch found; None keeps none.
        stop: called when the engine is closed.
    """

    def __init__(
        self,
        model: str,
        addresses: Callable[[], Sequence[Address]],
        *,
        reader: Callable[[], Reader] | None,
        key_variables: Mapping[str, str],
        limit: int,
        patience: Patience,
        kept: KeptAnswers | None = None,
        stop: Callable[[], None] | None = None,
    ) -> None:
        self._model, self._addresses, self._open_reader = model, addresses, reader
        self._key_variables = key_variables
        self._limit, self._patience, self._kept, self._stop = limit, patience, kept, stop
        self._runner: asyncio.Runner | None = None
        self._endpoints: list[Endpoint] = []
        self._reader: Reader | None = None
        self._context: int | None = None
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Wall time spent inside this engine so far."""
        return self._seconds

    # -- the contract ----------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], sampling: Sampling, adapter: Adapter | None) -> list[Completion]:
        """One completion a request, in order; a request that no attempt could answer is an ``error`` with its reason.

        Raises:
            EngineError: no endpoint answers, or none can do what is asked.
        """
        self._connect()
        if self._reader is None and adapter is not None:
            raise EngineError(
                f"{self._names()}: only vLLM loads adapters at run time, so it alone can serve a policy."
            )

        async def ask(request: Request) -> Completion:
            if self._reader is None:
                return await self._by_chat(request, sampling)
            return await self._by_tokens(request, sampling, adapter, self._reader)

        async def ask_and_keep(request: Request, kept: KeptAnswers) -> Completion:
            key = answer_key(self._model, adapter, sampling, request)
            if (answer := kept.take(key)) is None:
                answer = await ask(request)
                kept.add(key, answer)
            return answer

        return self._all(ask if self._kept is None else partial(ask_and_keep, kept=self._kept), requests)

    def score(self, requests: Sequence[ScoreRequest], adapter: Adapter | None) -> list[list[float] | Failed]:
        """Log-probabilities of each continuation's tokens, in order; empty where it does not fit the context.

        What no attempt could bring is ``Failed``. vLLM always samples a token as well, so what fills the context to
        the last token does not fit.

        Raises:
            EngineError: no endpoint answers.
            LogProbabilityError: the server gives none.
        """
        if not requests:
            return []
        reader = self._require_reader("log-probabilities, which kl, nll_base and likelihood are made from")

        async def one(request: ScoreRequest) -> list[float] | Failed:
            ids = [*encode(request.messages, reader.tokenizer), *request.token_ids]
            if not request.token_ids or (self._context is not None and len(ids) >= self._context):
                return []
            try:
                return await self._balancer.ask(
                    lambda endpoint: endpoint.log_probabilities(ids, len(request.token_ids), adapter)
                )
            except AttemptFailed as failure:
                return Failed(failure.reason)

        return self._all(one, requests)

    def encode_opening(self, text: str) -> list[int]:
        """Token ids of an answer that begins with ``text``, as they stand after a dialogue.

        Raises:
            InputError: the chat template writes an answer otherwise than it opens one.
            LogProbabilityError: the server keeps its tokens to itself.
        """
        return encode_opening(text, self._require_reader("tokens, which batteries need").tokenizer)

    def close(self) -> None:
        """Close the connections, and stop the servers if they are the pipeline's own."""
        if self._runner is not None:
            for endpoint in self._endpoints:
                self._runner.run(endpoint.close())
            self._runner.close()
        self._runner, self._endpoints = None, []
        if self._stop is not None:
            self._stop()

    # -- plumbing --------------------------------------------------------------------------------------------

    async def _by_tokens(
        self, request: Request, sampling: Sampling, adapter: Adapter | None, reader: Reader
    ) -> Completion:
        prompt = encode(request.messages, reader.tokenizer)
        if self._context is not None and len(prompt) + sampling.max_new_tokens > self._context:
            return too_long(len(prompt), sampling.max_new_tokens, self._context)
        try:
            answer = await self._balancer.ask(
                lambda endpoint: endpoint.complete(prompt, sampling, request.seed, reader.ends, adapter)
            )
        except AttemptFailed as failure:
            return Completion("", [], "error", len(prompt), failure.reason)
        ids = answer.token_ids or []
        return Completion(decode(ids, reader.tokenizer), ids, answer.finish_reason, len(prompt))

    async def _by_chat(self, request: Request, sampling: Sampling) -> Completion:
        messages = [{"role": m["role"], "content": as_plain_text_anywhere(m["content"])} for m in request.messages]
        try:
            answer = await self._balancer.ask(lambda endpoint: endpoint.chat(messages, sampling, request.seed))
        except AttemptFailed as failure:
            reason: FinishReason = "prompt_too_long" if says_too_long(failure) else "error"
            return Completion("", [], reason, 0, failure.reason)
        return Completion(answer.text, [], answer.finish_reason, answer.prompt_tokens, counted=answer.new_tokens)

    def _all(self, work: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
        self._connect()
        assert self._runner is not None
        started = time.monotonic()
        try:
            return self._runner.run(_in_parallel(work, items, self._limit * len(self._endpoints)))
        finally:
            self._seconds += time.monotonic() - started

    def _connect(self) -> None:
        if self._runner is not None:
            return
        addresses = self._addresses()
        self._endpoints = [Endpoint(address, self._key(address), self._limit) for address in addresses]
        self._balancer = Balancer(self._endpoints, self._limit, self._patience)
        runner = asyncio.Runner()
        try:
            self._read(self._introduction(runner))
        except BaseException:
            runner.close()
            raise
        self._runner = runner

    def _introduction(self, runner: asyncio.Runner) -> Card:
        asking = Balancer(self._endpoints, self._limit, self._patience._replace(attempts=_INTRODUCTIONS))
        try:
            return runner.run(asking.ask(Endpoint.card))
        except AttemptFailed as failure:
            # `transformers serve` fails to list models where the Hub's cache is empty, and serves all the same.
            if failure.down or not all(endpoint.trust_address() for endpoint in self._endpoints):
                # Without its cause: a server may say the key that it refuses, and logs show causes.
                raise EngineError(f"{self._names()}: {failure.reason}") from None
            return runner.run(self._endpoints[0].card())

    def _key(self, address: Address) -> str | None:
        variable = self._key_variables.get(address.host)
        if variable is None:
            return None
        if not os.environ.get(variable):
            raise InputError(
                f"{address.url}: its key should be in the environment variable {variable} (`api_keys`), "
                "which is not set."
            )
        return os.environ[variable]

    def _read(self, card: Card) -> None:
        self._reader, self._context = None, None
        if card.software != "vllm":
            return
        if self._open_reader is not None:
            self._reader = self._open_reader()
        elif card.root is not None:
            try:
                self._reader = load_reader(card.root, revision=None, chat_template=None)
            except (OSError, ValueError) as error:
                log.info("%s: its tokenizer is not at hand (%s); asked by chat", self._names(), first_line(error))
        if self._reader is not None:
            known = [limit for limit in (self._reader.context, card.context) if limit is not None]
            self._context = min(known, default=None)

    def _require_reader(self, what: str) -> Reader:
        self._connect()
        if self._reader is None:
            raise LogProbabilityError(
                f"{self._names()}: gives no {what}. vLLM does; or use `policy_engine: local`, or leave those scorers "
                "out."
            )
        return self._reader

    def _names(self) -> str:
        return ", ".join(map(str, self._endpoints))


async def _in_parallel(work: Callable[[T], Awaitable[R]], items: Sequence[T], workers: int) -> list[R]:
    """``work`` on every item, so many at once, and what it gave in the order of the items."""
    found: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for i, item in waiting:
            found[i] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [found[i] for i in range(len(items))]
