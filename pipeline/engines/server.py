"""The engine over OpenAI-compatible servers: vLLM by token ids, any other by its chat endpoint."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pipeline.engines.balance import START_AGAIN, AttemptFailed, Balancer, Patience
from pipeline.engines.base import Adapter, Completion, Failed, FinishReason, Request, Sampling, ScoreRequest, too_long
from pipeline.engines.chat import (
    as_plain_text_anywhere,
    decode,
    encode,
    encode_opening,
    end_tokens,
    load_tokenizer,
)
from pipeline.engines.endpoint import Card, Endpoint, allow_connections, says_too_long
from pipeline.engines.kept import KeptAnswers, answer_key
from pipeline.errors import EngineError, LogProbabilityError, first_line
from pipeline.inputs.addresses import Address, read_key

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("pipeline")

_INTRODUCTIONS = 3
"""Attempts to learn what a server serves."""
_GREETING = 30.0
"""Seconds that a server has to say what it serves before work begins; later it is asked with its first request."""


class Reader(NamedTuple):
    """How dialogues become token ids for a model, and its answers become text.

    Attributes:
        tokenizer: tokenizer with the chat template to use.
        ends: tokens that end an answer.
        context: maximum number of tokens of prompt and answer together, or None.
    """

    tokenizer: Any
    ends: list[int]
    context: int | None


def load_reader(model: str, *, revision: str | None, chat_template: str | None) -> Reader:
    """The reader of a model (Hub id or folder); loads no weights.

    Raises:
        OSError: there is no such model, or it has no tokenizer.
        InputError: the model has no token that ends its answers.
    """
    from transformers import AutoConfig, GenerationConfig

    tokenizer = load_tokenizer(model, revision, chat_template)
    config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    try:
        generation = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # not every model has one
        generation = GenerationConfig.from_model_config(config)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Reader(tokenizer, end_tokens(generation, tokenizer), context)


class ServerEngine:
    """A model behind one or more endpoints that share the load.

    vLLM is sent token ids and returns token ids: dialogues are tokenised here, with the same tokenizer and template as
    in training, so no token is doubled and no text becomes a control token. Other servers are sent dialogues; they
    return neither token ids nor log-probabilities, and control tokens are broken in their usual spellings.

    Args:
        model: model behind the servers, as the recipe names it.
        addresses: gives the servers' addresses; called when they are first needed.
        reader: gives the reader of a policy, which only vLLM can serve; if None, it is loaded from where a vLLM server
            says its model came from, and other servers need none.
        key_variables: host -> environment variable that holds its key.
        limit: most requests in flight per endpoint.
        patience: limits of every request.
        kept: where answers are saved as they arrive and those of an earlier launch are found, or None.
        stop: called when the engine is closed.
        advice: what to do when all servers are gone.
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
        advice: str = START_AGAIN,
    ) -> None:
        self._model, self._addresses, self._open_reader = model, addresses, reader
        self._key_variables = key_variables
        self._limit, self._patience, self._kept = limit, patience, kept
        self._stop, self._advice = stop, advice
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
        """One completion per request, in order; one that failed in every attempt is an ``error`` with its reason.

        Raises:
            EngineError: no endpoint answers, or none can do what is asked.
        """
        self.connect()
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

        A request that failed in every attempt is ``Failed``. vLLM always samples a token as well, so a request that
        fills the context to the last token does not fit.

        Raises:
            EngineError: no endpoint answers.
            LogProbabilityError: the server gives none.
        """
        if not requests:
            return []
        reader = self._require_reader("log-probabilities")

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
        """Token ids of an answer that begins with ``text``, as they appear after a dialogue.

        Raises:
            InputError: the chat template opens a written answer differently from one to be generated.
            LogProbabilityError: the server is not vLLM, or its tokenizer could not be loaded.
        """
        return encode_opening(text, self._require_reader("token ids").tokenizer)

    def connect(self) -> None:
        """Learn what the servers serve, unless it is known; otherwise done with the first request.

        Raises:
            EngineError: no endpoint answers, or one rejects the key or serves another model than is expected.
        """
        if self._runner is not None:
            return
        addresses = self._addresses()
        allow_connections()
        self._endpoints = [
            Endpoint(address, read_key(address, self._key_variables), self._limit) for address in addresses
        ]
        self._balancer = Balancer(self._endpoints, self._limit, self._patience, self._advice, Endpoint.is_up)
        self._runner = runner = asyncio.Runner()
        try:
            endpoint, card = self._introduction(runner)
            self._read(endpoint, card)
            if self._reader is not None:  # token ids are of one model
                for one in self._endpoints:
                    one.expect(card)
                runner.run(_in_parallel(_greet, self._endpoints, len(self._endpoints)))
        except BaseException:
            self._disconnect()
            raise

    def close(self) -> None:
        """Close the connections, and stop the servers if they are the pipeline's own."""
        self._disconnect()
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
        self.connect()
        assert self._runner is not None
        started = time.monotonic()
        try:
            return self._runner.run(_in_parallel(work, items, self._limit * len(self._endpoints)))
        finally:
            self._seconds += time.monotonic() - started

    def _disconnect(self) -> None:
        if self._runner is not None:
            for endpoint in self._endpoints:
                self._runner.run(endpoint.close())
            self._runner.close()
        self._runner, self._endpoints = None, []

    def _introduction(self, runner: asyncio.Runner) -> tuple[Endpoint, Card]:
        patience = self._patience._replace(attempts=_INTRODUCTIONS)
        asking = Balancer(self._endpoints, self._limit, patience, self._advice)

        async def meet(endpoint: Endpoint) -> tuple[Endpoint, Card]:
            return endpoint, await endpoint.card()

        try:
            return runner.run(asking.ask(meet))
        except AttemptFailed as failure:
            # `transformers serve` fails to list models where the Hub's cache is empty, but serves them anyway.
            if failure.down or not all(endpoint.trust_address() for endpoint in self._endpoints):
                # Without its cause: a server may repeat the key that it rejects, and logs show causes.
                raise EngineError(f"{self._names()}: {failure.reason}") from None
            return runner.run(meet(self._endpoints[0]))

    def _read(self, endpoint: Endpoint, card: Card) -> None:
        self._reader, self._context = None, None
        if not card.is_vllm:
            if self._open_reader is not None:
                raise EngineError(
                    f"{endpoint}: is not a vLLM server (`owned_by` of `{card.model}`: {card.owner or 'not given'}). A "
                    "policy needs vLLM, which alone takes token ids, gives log-probabilities and loads adapters; a "
                    "critic, reviser or judge may be any OpenAI-compatible server."
                )
            return
        if self._open_reader is not None:
            self._reader = self._open_reader()
        elif card.root is not None:
            try:
                self._reader = load_reader(card.root, revision=None, chat_template=None)
            except (OSError, ValueError) as error:
                log.info(
                    "%s: its tokenizer could not be loaded (%s); using the chat endpoint instead",
                    self._names(),
                    first_line(error),
                )
        if self._reader is not None:
            known = [limit for limit in (self._reader.context, card.context) if limit is not None]
            self._context = min(known, default=None)

    def _require_reader(self, what: str) -> Reader:
        self.connect()
        if self._reader is None:
            raise LogProbabilityError(
                f"{self._names()}: gives no {what}; only vLLM does. Use vLLM, or `policy_engine: local`, or leave out "
                "the scorers that read probabilities (kl, nll_base, likelihood, choice, sycophancy, nll_reference, a "
                "judge without judge_votes)."
            )
        return self._reader

    def _names(self) -> str:
        return ", ".join(map(str, self._endpoints))


async def _greet(endpoint: Endpoint) -> None:
    with suppress(AttemptFailed, TimeoutError):  # the balancer leaves it out
        async with asyncio.timeout(_GREETING):
            await endpoint.card()


async def _in_parallel(work: Callable[[T], Awaitable[R]], items: Sequence[T], workers: int) -> list[R]:
    """Run ``work`` on every item, this many at once; results are in the order of the items."""
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
