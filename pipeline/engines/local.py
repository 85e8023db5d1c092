"""The in-process engine: transformers and PEFT on this process's device."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import logging as transformers_logging

from pipeline.engines.base import Adapter, Completion, FinishReason, Message, Request, Sampling, ScoreRequest, too_long
from pipeline.engines.chat import (
    decode,
    encode,
    encode_opening,
    end_tokens,
    load_tokenizer,
    require_chat_template,
)
from pipeline.engines.decoding import Prompt, sample
from pipeline.engines.onednn import use_onednn
from pipeline.engines.prefill import READ_AT_ONCE, Model, left_padded, positions_of
from pipeline.engines.prefixes import Prefixes
from pipeline.engines.window import sees_everything
from pipeline.errors import EngineError, first_line


class _Pass(NamedTuple):
    """A dialogue with all but the last token of a continuation, and the indices of the requests that it answers."""

    prompt: list[int]
    head: tuple[int, ...]
    requests: list[int]


class LocalEngine:
    """A causal language model in this process, and the adapters loaded onto it.

    Args:
        model: Hub id or folder.
        revision: Hub revision, or None.
        dtype: name of a torch dtype, such as ``bfloat16``.
        quantization: transformers' ``BitsAndBytesConfig``, or None.
        chat_template: Jinja source that replaces the tokenizer's own, or None.
        batch_size: rows that are decoded together.
        prefix_memory: bytes for what was computed of dialogues that will be continued.

    Raises:
        EngineError: the model cannot be loaded.
        InputError: its tokenizer has no chat template and none is given.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        dtype: str,
        chat_template: str | None,
        batch_size: int,
        prefix_memory: int = 0,
        quantization: Any = None,
    ) -> None:
        from accelerate import PartialState

        self._batch_size = batch_size
        device = PartialState().device
        self.tokenizer, self._model = _load(model, revision, chat_template, dtype, quantization, device)
        require_chat_template(self.tokenizer)
        self._context = _context(self._model.config.get_text_config())
        self._end_tokens = end_tokens(self._model.generation_config, self.tokenizer)
        self._pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._end_tokens[0]
        self._prefixes = Prefixes(prefix_memory) if sees_everything(self._model.config) else None
        self._prefixes_under: Adapter | None = None
        self._adapters: set[str] = set()
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Wall time spent inside this engine so far."""
        return self._seconds

    # -- sampling --------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], sampling: Sampling, adapter: Adapter | None) -> list[Completion]:
        """One completion per request, in order; a prompt without room for an answer is refused, not truncated."""
        started = time.monotonic()
        prompts = [encode(request.messages, self.tokenizer) for request in requests]
        answers: list[Completion | None] = [None] * len(requests)
        fitting = []
        for i, prompt in enumerate(prompts):
            if self._context is not None and len(prompt) + sampling.max_new_tokens > self._context:
                answers[i] = too_long(len(prompt), sampling.max_new_tokens, self._context)
            else:
                fitting.append(i)
        # Shortest first, with equal prompts together; the order of the requests does not matter.
        fitting.sort(key=lambda i: (len(prompts[i]), prompts[i], requests[i].seed))
        with self._wearing(adapter):
            drawn = sample(
                Model(self._model, self._end_tokens, self._pad),
                [Prompt(prompts[i], requests[i].seed, requests[i].goes_on) for i in fitting],
                sampling,
                self._batch_size,
                self._prefixes_for(requests, adapter),
            )
            for i, tokens in zip(fitting, drawn, strict=True):
                answers[i] = self._completion(tokens, len(prompts[i]))
        if self._prefixes is not None and not any(request.goes_on for request in requests):
            self._prefixes.clear()  # what was to be continued has been
        self._seconds += time.monotonic() - started
        return [answer for answer in answers if answer is not None]

    def _prefixes_for(self, requests: Sequence[Request], adapter: Adapter | None) -> Prefixes | None:
        """The dialogues kept so far: those of one adapter, from the latest requests to be continued."""
        if self._prefixes is not None and (adapter != self._prefixes_under or any(one.goes_on for one in requests)):
            self._prefixes.clear()
            self._prefixes_under = adapter
        return self._prefixes

    def _completion(self, tokens: list[int], prompt_tokens: int) -> Completion:
        reason: FinishReason = "stop" if tokens and tokens[-1] in self._end_tokens else "length"
        return Completion(decode(tokens, self.tokenizer), tokens, reason, prompt_tokens)

    # -- scoring ---------------------------------------------------------------------------------------------

    def score(self, requests: Sequence[ScoreRequest], adapter: Adapter | None) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens, in order; an empty list if it does not fit the context."""
        started = time.monotonic()
        # Continuations of one dialogue that differ only in their last token are read off a single pass over it.
        prompts = self._encoded([request.messages for request in requests])
        passes: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for i, request in enumerate(requests):
            length = len(prompts[i]) + len(request.token_ids)
            if request.token_ids and (self._context is None or length <= self._context):
                passes.setdefault((id(request.messages), tuple(request.token_ids[:-1])), []).append(i)
        rows = [_Pass(prompts[same[0]], head, same) for (_, head), same in passes.items()]
        rows.sort(key=lambda row: (-len(row.prompt) - len(row.head), row.requests[0]))
        found: list[list[float]] = [[] for _ in requests]
        with self._wearing(adapter):
            start = 0
            while start < len(rows):
                longest = len(rows[start].prompt) + len(rows[start].head)
                count = max(min(self._batch_size, READ_AT_ONCE // max(longest, 1)), 1)
                self._score_batch(rows[start : start + count], requests, found)
                start += count
        self._seconds += time.monotonic() - started
        return found

    def _encoded(self, dialogues: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of dialogues; the same list of messages is tokenised only once."""
        ids = {id(messages): messages for messages in dialogues}
        encoded = {key: encode(messages, self.tokenizer) for key, messages in ids.items()}
        return [encoded[id(messages)] for messages in dialogues]

    @torch.inference_mode()
    def _score_batch(self, batch: Sequence[_Pass], requests: Sequence[ScoreRequest], found: list[list[float]]) -> None:
        tokens, mask = left_padded([[*row.prompt, *row.head] for row in batch], self._pad, self._model.device)
        longest = max(len(row.head) for row in batch)
        # Padding is on the left, so every continuation ends in the last column and only those logits are computed.
        logits = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions_of(mask),
            logits_to_keep=longest + 1,
            use_cache=False,
        ).logits
        for r, row in enumerate(batch):
            # One row at a time: in float64 a batch would take several times the memory of these logits.
            own = logits[r, longest - len(row.head) :].double().log_softmax(-1)
            heads = torch.tensor(row.head, device=own.device, dtype=torch.int64)
            shared = own[:-1].gather(-1, heads[:, None])[:, 0].tolist()
            lasts = own[-1, [requests[i].token_ids[-1] for i in row.requests]].tolist()
            for i, last in zip(row.requests, lasts, strict=True):
                found[i] = [*shared, last]

    def encode_opening(self, text: str) -> list[int]:
        """Token ids of an answer that begins with ``text``, as they appear after a dialogue.

        Raises:
            InputError: the chat template opens a written answer differently from one to be generated.
        """
        return encode_opening(text, self.tokenizer)

    # -- plumbing --------------------------------------------------------------------------------------------

    @contextmanager
    def _wearing(self, adapter: Adapter | None) -> Iterator[None]:
        if adapter is None and not self._adapters:
            yield
        elif adapter is None:
            with self._model.disable_adapter():
                yield
        else:
            self._put_on(adapter)
            yield

    def _put_on(self, adapter: Adapter) -> None:
        from peft import PeftModel

        name = adapter.sha256[:16]
        # By itself PEFT reads weights onto the first GPU, and keeps them in float32 beside a base in half precision.
        loading = {"torch_device": str(self._model.device), "autocast_adapter_dtype": False}
        if not self._adapters:
            self._model = PeftModel.from_pretrained(
                self._model, str(adapter.path), adapter_name=name, **loading
            ).eval()
        elif name not in self._adapters:
            self._model.load_adapter(str(adapter.path), adapter_name=name, **loading)
        self._adapters.add(name)
        self._model.set_adapter(name)
        self._model.requires_grad_(False)

    def close(self) -> None:
        """Free the memory; the engine cannot be used after this."""
        del self._model, self._prefixes
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _context(config: Any) -> int | None:
    """Tokens that fit a model, or None where its configuration does not say.

    With ``longrope``, transformers turns all rows of a pass by other frequencies once one row is longer than the
    original context: an answer would depend on the rest of its batch. So that is the limit here.
    """
    longest: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None
    return original or longest


def _load(
    model: str,
    revision: str | None,
    chat_template: str | None,
    dtype: str,
    quantization: Any,
    device: torch.device,
) -> tuple[Any, Any]:
    from pipeline.inputs.model import require_model_folder

    require_model_folder(model)
    transformers_logging.disable_progress_bar()  # one bar per shard and rank tells nobody anything
    # ZeRO-3 would also partition this model, and all ranks would gather it in step for every token. Training sets it
    # again.
    unset_hf_deepspeed_config()
    try:
        tokenizer = load_tokenizer(model, revision, chat_template)
        loaded = AutoModelForCausalLM.from_pretrained(
            model,
            revision=revision,
            dtype=dtype,
            quantization_config=quantization,
            trust_remote_code=False,
            use_safetensors=True,
            device_map={"": device} if device.type != "cpu" else None,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise EngineError(
            f"{model}: cannot be loaded ({first_line(error)}). Give a Hub id or a folder with config.json, "
            "tokenizer files and *.safetensors weights as `model_name_or_path`."
        ) from error
    if "past_key_values" not in signature(loaded.forward).parameters:
        raise EngineError(
            f"{model}: {type(loaded).__name__} keeps what it has read in a state of its own, which the engine in this "
            "process cannot continue from. Serve it, and give its address as `policy_endpoints`, `critic`, ..."
        )
    if quantization is None:
        loaded = loaded.to(device)  # under an FSDP launch transformers leaves some buffers of other ranks on the CPU
    use_onednn(loaded)
    return tokenizer, loaded.eval()
