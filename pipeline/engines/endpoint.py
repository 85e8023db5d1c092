"""One OpenAI-compatible endpoint: what it serves, a single request to it, and what its answers and errors mean."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeGuard
from urllib.parse import urlsplit

import httpx2
import openai

from pipeline.engines.balance import AttemptFailed
from pipeline.engines.base import Adapter, Message, Sampling
from pipeline.errors import EngineError
from pipeline.inputs.addresses import Address

_IDLE = 3.0
"""Seconds after which idle connections are closed: uvicorn closes them after 5, perhaps just as a request is sent."""

_AT_ONCE = 10.0
"""Seconds within which a server that is up lists its models, however many answers it is working on."""

_OPEN_FILES = 65_536
"""Most open files and connections that are asked for: 256 connections to 8 servers, several times over."""

_DOWN = (408, 502, 503, 504)
_TOO_LONG = ("context_length_exceeded", "maximum context length", "context length", "context window")


class Card(NamedTuple):
    """What an endpoint says about itself.

    Attributes:
        model: name to ask for.
        owner: owner of the model according to the server (`owned_by`), or None.
        root: where the server loaded the model from, if it says so.
        context: maximum number of tokens of prompt and answer together, if it says so.
    """

    model: str
    owner: str | None
    root: str | None
    context: int | None

    @property
    def is_vllm(self) -> bool:
        """Whether the server is vLLM, which takes and gives token ids and loads adapters."""
        return self.owner == "vllm"


class Answer(NamedTuple):
    """A checked answer; ``token_ids`` is None where the server does not return them."""

    text: str
    token_ids: list[int] | None
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int


class Endpoint:
    """A server, and the adapters that it is known to have loaded.

    Args:
        address: address of the server.
        key: API key, or None. It is sent to this address only and shown nowhere.
        connections: maximum number of open connections.
    """

    def __init__(self, address: Address, key: str | None, connections: int) -> None:
        self.address = address
        self._key = key
        self._client = openai.AsyncOpenAI(
            base_url=address.url,
            api_key=key or "none",
            max_retries=0,  # the balancer retries, perhaps at another endpoint
            # aiohttp's: httpx searches all its connections on every request, which takes milliseconds with hundreds.
            http_client=openai.DefaultAioHttpClient(
                limits=httpx2.Limits(
                    max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE
                ),
                timeout=None,  # the balancer limits each attempt
                trust_env=urlsplit(address.url).hostname
                not in ("127.0.0.1", "localhost", "::1"),  # no proxy to this machine itself
            ),
        )
        if address.host != "api.openai.com":
            # Taken from the environment, where they are meant for OpenAI's host alone.
            self._client.organization = self._client.project = None
        self._card: Card | None = None
        self._expected: Card | None = None
        self._loaded: set[str] = set()
        self._lock = asyncio.Lock()

    def __str__(self) -> str:
        return self.address.url

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    # -- what it serves --------------------------------------------------------------------------------------

    async def card(self) -> Card:
        """What the endpoint serves; asked for only once.

        Raises:
            AttemptFailed: no answer.
            EngineError: it does not serve the model, or another than is expected.
        """
        async with self._lock:
            if self._card is None:
                card = self._read_card(await self._call(self._list()))
                self._compare(card)
                self._card = card
            return self._card

    def expect(self, card: Card) -> None:
        """Refuse to be, once the endpoint says what it serves, other than another vLLM with the model of ``card``."""
        self._expected = card

    def trust_address(self) -> bool:
        """Take the address's word for the model where the server lists none; False if the address names none."""
        if self.address.model is None:
            return False
        self._card = Card(self.address.model, None, None, None)
        return True

    async def is_up(self) -> bool:
        """Whether the server says at once what it serves."""
        try:
            async with asyncio.timeout(_AT_ONCE):
                await self._list()
        except (TimeoutError, openai.APIError):
            return False
        return True

    async def _list(self) -> Any:
        try:
            return await self._client.get("/models", cast_to=object)
        except (openai.NotFoundError, openai.PermissionDeniedError):
            if self.address.model is None:
                raise
            return {"data": []}  # not every API shows its list; the address says what to ask for

    def _compare(self, card: Card) -> None:
        if self._expected is None:
            return
        if not card.is_vllm:
            raise EngineError(f"{self}: is not a vLLM server, unlike the other addresses of this model.")
        if card.root != self._expected.root:
            raise EngineError(
                f"{self}: serves {card.root}, and another address of this model {self._expected.root}. Start all of "
                "them with the same `--model`."
            )

    def _read_card(self, listed: Any) -> Card:
        models = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(models, list) or not all(isinstance(m, dict) and "id" in m for m in models):
            raise EngineError(
                f"{self}: lists no models, so it is not an OpenAI-compatible API. Should the address end in `/v1`?"
            )
        wanted = self.address.model
        bases = [model for model in models if model.get("parent") is None]
        chosen = next((model for model in models if model["id"] == wanted), None)
        if wanted is None and len(bases) == 1:
            chosen = bases[0]
        if chosen is None and wanted is not None and not any(model.get("owned_by") == "vllm" for model in models):
            return Card(wanted, None, None, None)  # a server may list fewer models than it serves
        if chosen is None:
            names = ", ".join(str(model["id"]) for model in models[:10]) or "none"
            raise EngineError(
                f"{self}: {f'has no model `{wanted}`' if wanted else 'serves no or several models'}; it lists "
                f"{names}. Name one after the address: `{self}#MODEL`."
            )
        owner, context = chosen.get("owned_by"), chosen.get("max_model_len")
        return Card(
            str(chosen["id"]),
            owner,
            chosen.get("root") if owner == "vllm" else None,
            context if isinstance(context, int) else None,
        )

    # -- requests --------------------------------------------------------------------------------------------

    async def complete(
        self, prompt: Sequence[int], sampling: Sampling, seed: int, ends: Sequence[int], adapter: Adapter | None
    ) -> Answer:
        """The answer to a prompt, both as token ids (vLLM).

        Raises:
            AttemptFailed: no usable answer.
            EngineError: no request to this endpoint could succeed.
        """
        model = await self._name_of(adapter)
        body = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "return_token_ids": True,
            "stop_token_ids": list(ends),
            # A server may take these from the model's own generation_config unless they are given.
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        found = await self._post("/completions", body, adapter)
        choice = _only_choice(found)
        ids = choice.get("token_ids")
        usage = _usage(found)
        if not _are_integers(ids) or len(ids) != usage[1] or usage[0] != len(prompt):
            raise AttemptFailed("the answer's tokens do not match its token counts", again=True)
        return Answer("", ids, _finish_reason(choice), *usage)

    async def chat(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Answer:
        """The answer to a dialogue, which the server renders with its own template.

        Raises:
            AttemptFailed: no usable answer.
            EngineError: no request to this endpoint could succeed.
        """
        model = await self._name_of(None)
        # OpenAI renamed the limit and refuses the old name for new models; most other servers know the old one.
        limit = "max_completion_tokens" if self.address.host == "api.openai.com" else "max_tokens"
        body = {
            "model": model,
            "messages": [dict(message) for message in messages],
            limit: sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        found = await self._post("/chat/completions", body)
        choice = _only_choice(found)
        message = choice.get("message")
        said = message if isinstance(message, dict) else {}
        text = said.get("content") or said.get("refusal") or ""
        usage, reason = _usage(found), _finish_reason(choice)
        # A truncated answer may have spent all its tokens on reasoning that the server does not return.
        if not isinstance(text, str) or (not text and usage[1] > 1 and reason == "stop"):
            raise AttemptFailed("the answer has no text", again=True)
        return Answer(text.strip(), None, reason, *usage)

    async def log_probabilities(self, prompt: Sequence[int], wanted: int, adapter: Adapter | None) -> list[float]:
        """Log-probabilities of the prompt's last ``wanted`` tokens (vLLM).

        Raises:
            AttemptFailed: no usable answer.
            EngineError: no request to this endpoint could succeed.
        """
        model = await self._name_of(adapter)
        # At least one token must be asked for.
        body = {"model": model, "prompt": list(prompt), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        rows = _only_choice(await self._post("/completions", body, adapter)).get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(prompt):
            raise AttemptFailed("the answer does not have one log-probability per token of the prompt", again=True)
        try:
            scored = zip(rows[-wanted:], prompt[-wanted:], strict=True)
            return [float(row[str(token)]["logprob"]) for row, token in scored]
        except (KeyError, TypeError, ValueError) as error:
            raise AttemptFailed("a token of the prompt has no log-probability", again=True) from error

    # -- adapters --------------------------------------------------------------------------------------------

    async def _name_of(self, adapter: Adapter | None) -> str:
        card = await self.card()
        if adapter is None:
            return card.model
        # The name holds the digest, so that no adapter gets the name, and with it the cached prefixes, of another.
        name = f"adapter-{adapter.sha256[:32]}"
        async with self._lock:
            if name not in self._loaded:
                await self._load(name, adapter, card)
                self._loaded.add(name)
        return name

    async def _load(self, name: str, adapter: Adapter, card: Card) -> None:
        listed = await self._call(self._client.get("/models", cast_to=object))
        if isinstance(listed, dict) and any(model.get("id") == name for model in listed.get("data", [])):
            return
        body = {"lora_name": name, "lora_path": str(adapter.path.resolve())}
        try:
            await self._client.post("/load_lora_adapter", body=body, cast_to=str)
        except openai.APIStatusError as error:
            if error.status_code == 400 and "already" in str(error):
                return  # another process of this launch got there first
            # vLLM answers 500 if the rank is above its own, or if it does not adapt one of the layers.
            if error.status_code in (400, 404, 405, 500):
                raise EngineError(
                    f"{self}: cannot load the adapter {adapter.path} ({self._said(error)}). Start vLLM with "
                    "--enable-lora, --max-lora-rank of at least `lora_r`, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True "
                    "in its environment, on a machine that sees the run directory under the same path."
                ) from None
            raise self._failure(error) from None
        except openai.OpenAIError as error:
            raise self._failure(error) from None

    # -- errors ----------------------------------------------------------------------------------------------
    # Raised without their causes: a server may repeat the key that it rejects, and the run's log shows causes.

    async def _post(self, path: str, body: dict[str, Any], adapter: Adapter | None = None) -> Any:
        # By the client's general method: the one for completions spends milliseconds per request on checking the
        # prompt's token ids one by one, and would build objects from answers that are not completions.
        return await self._call(self._client.post(path, body=body, cast_to=object), adapter)

    async def _call(self, call: Any, adapter: Adapter | None = None) -> Any:
        try:
            return await call
        except openai.NotFoundError as error:
            if adapter is None:
                raise self._failure(error) from None
            self._loaded.clear()  # a server that was restarted has forgotten its adapters
            raise AttemptFailed("the server has lost the adapter", again=True) from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> Exception:
        """What an error means: another attempt may succeed, this request cannot, or none to this endpoint can."""
        if isinstance(error, openai.APIStatusError):
            status, said = error.status_code, self._said(error)
            if status in (401, 403):
                host = self.address.host
                return EngineError(
                    f"{self}: rejects the key ({status}). Put the key into an environment variable and name the "
                    f"variable in the recipe, `api_keys: [{host}=VARIABLE]`."
                )
            if status == 404 or "insufficient_quota" in said:
                return EngineError(f"{self}: {said} ({status}).")
            if status in (408, 409, 429) or status >= 500:
                return AttemptFailed(
                    f"{status}: {said}",
                    again=True,
                    down=status in _DOWN,
                    limited=status == 429,
                    after=_retry_after(error),
                )
            return AttemptFailed(f"{status}: {said}", again=False)
        if isinstance(error, openai.APIConnectionError | httpx2.HTTPError):
            return AttemptFailed(f"connection failed ({self._said(error)})", again=True, down=True)
        return AttemptFailed(f"unreadable answer ({type(error).__name__})", again=True)

    def _said(self, error: Exception) -> str:
        cause = error.__cause__ or error
        text = " ".join(str(cause).split()) or type(cause).__name__
        return (text.replace(self._key, "***") if self._key else text)[:300]


def allow_connections() -> None:
    """Let this process have as many connections open as the system permits: often 1,024 unless it is asked."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def says_too_long(failure: AttemptFailed) -> bool:
    """Whether a server refused a request because it does not fit the model's context."""
    return not failure.again and any(words in failure.reason.lower() for words in _TOO_LONG)


def _only_choice(found: Any) -> dict[str, Any]:
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise AttemptFailed("the answer is not a completion", again=True)
    return choices[0]


def _finish_reason(choice: Mapping[str, Any]) -> Literal["stop", "length"]:
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise AttemptFailed("withheld by the server's content filter", again=False)
    if reason not in ("stop", "length"):
        raise AttemptFailed(f"the answer was not finished ({reason})", again=True)
    return reason


def _usage(found: Mapping[str, Any]) -> tuple[int, int]:
    usage = found.get("usage")
    counted = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    if not counted or not _are_integers(counted):
        raise AttemptFailed("the answer does not report its token counts", again=True)
    return counted[0], counted[1]


def _are_integers(found: Any) -> TypeGuard[list[int]]:
    return isinstance(found, list) and all(isinstance(one, int) for one in found)


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that a server asks to wait: OpenAI's milliseconds, or HTTP's seconds or date."""
    headers: Mapping[str, str] = error.response.headers
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) * unit)
    with suppress(KeyError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None
