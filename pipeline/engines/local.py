"""The in-process engine: transformers and PEFT on this process's device."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import logging as transformers_logging

from pipeline.engines.base import Adapter, Completion, FinishReason, Message, Request, Sampling, ScoreRequest
from pipeline.engines.chat import encode, plain_messages, require_chat_template
from pipeline.engines.sampling import draw_tokens
from pipeline.errors import EngineError, InputError

_COMPACT_BELOW = 0.75
"""Drop finished rows from the batch once fewer than this share is still going: copying the cache has a price."""


class LocalEngine:
    """A causal language model in this process, and the adapters loaded onto it.

    Args:
        model: Hub id or folder.
        revision: Hub revision, or None.
        dtype: name of a torch dtype, such as ``bfloat16``.
        quantization: transformers' ``BitsAndBytesConfig``, or None.
        chat_template: Jinja source that replaces the tokenizer's own, or None.
        batch_size: rows that are decoded together.

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
        quantization: Any = None,
    ) -> None:
        from accelerate import PartialState

        self._batch_size = batch_size
        self.tokenizer, self._model = _load(model, revision, dtype, quantization, PartialState().device)
        if chat_template is not None:
            self.tokenizer.chat_template = chat_template
        require_chat_template(self.tokenizer)
        self._context: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._end_tokens = _end_tokens(self._model.generation_config, self.tokenizer)
        self._pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._end_tokens[0]
        self._adapters: set[str] = set()
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Wall time spent inside this engine so far."""
        return self._seconds

    # -- sampling --------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], sampling: Sampling, adapter: Adapter | None) -> list[Completion]:
        """One completion a request, in order; a prompt that leaves no room for an answer is not cut but refused."""
        started = time.monotonic()
        prompts = [encode(request.messages, self.tokenizer) for request in requests]
        answers: list[Completion | None] = [None] * len(requests)
        fitting = []
        for i, prompt in enumerate(prompts):
            if self._context is not None and len(prompt) + sampling.max_new_tokens > self._context:
                answers[i] = _too_long(len(prompt), sampling.max_new_tokens, self._context)
            else:
                fitting.append(i)
        # Rows of like length share a batch: little padding, and a composition that the request order can't change.
        fitting.sort(key=lambda i: (-len(prompts[i]), requests[i].seed))
        with self._wearing(adapter):
            for start in range(0, len(fitting), self._batch_size):
                batch = fitting[start : start + self._batch_size]
                drawn = self._decode([prompts[i] for i in batch], [requests[i].seed for i in batch], sampling)
                for i, tokens in zip(batch, drawn, strict=True):
                    answers[i] = self._completion(tokens, len(prompts[i]))
        self._seconds += time.monotonic() - started
        return [answer for answer in answers if answer is not None]

    def _completion(self, tokens: list[int], prompt_tokens: int) -> Completion:
        reason: FinishReason = "stop" if tokens and tokens[-1] in self._end_tokens else "length"
        text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Completion(text.strip(), tokens, reason, prompt_tokens)

    @torch.inference_mode()
    def _decode(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> list[list[int]]:
        device = self._model.device
        tokens, mask = self._left_padded(prompts)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        noise_seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
        ends = torch.tensor(self._end_tokens, device=device)
        row_of = torch.arange(len(prompts), device=device)  # which request a row of the batch belongs to
        going = torch.ones(len(prompts), dtype=torch.bool, device=device)
        drawn = torch.full((len(prompts), sampling.max_new_tokens), -1, dtype=torch.int64, device=device)
        cache = DynamicCache(config=self._model.config)
        for step in range(sampling.max_new_tokens):
            output = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            new = draw_tokens(output.logits[:, -1], noise_seeds[row_of], step, sampling)
            drawn[row_of[going], step] = new[going]
            going &= ~torch.isin(new, ends)
            alive = int(going.sum())
            if alive == 0:
                break
            if alive < _COMPACT_BELOW * len(going):
                kept = going.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                new, mask, positions, row_of, going = (t[kept] for t in (new, mask, positions, row_of, going))
            tokens = new[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return [[token for token in row if token >= 0] for row in drawn.tolist()]

    # -- scoring ---------------------------------------------------------------------------------------------

    def score(self, requests: Sequence[ScoreRequest], adapter: Adapter | None) -> list[list[float]]:
        """Log-probabilities of each continuation's tokens, in order; empty where it does not fit the context."""
        started = time.monotonic()
        prompts = [encode(request.messages, self.tokenizer) for request in requests]
        lengths = [len(prompt) + len(r.token_ids) for prompt, r in zip(prompts, requests, strict=True)]
        fitting = [
            i
            for i, request in enumerate(requests)
            if request.token_ids and (self._context is None or lengths[i] <= self._context)
        ]
        fitting.sort(key=lambda i: (-lengths[i], i))
        found: list[list[float]] = [[] for _ in requests]
        with self._wearing(adapter):
            for start in range(0, len(fitting), self._batch_size):
                batch = fitting[start : start + self._batch_size]
                rows = self._log_probabilities([(prompts[i], list(requests[i].token_ids)) for i in batch])
                for i, row in zip(batch, rows, strict=True):
                    found[i] = row
        self._seconds += time.monotonic() - started
        return found

    @torch.inference_mode()
    def _log_probabilities(self, rows: list[tuple[list[int], list[int]]]) -> list[list[float]]:
        tokens, mask = self._left_padded([prompt + continuation for prompt, continuation in rows])
        longest = max(len(continuation) for _, continuation in rows)
        # Padding is on the left, so every continuation ends in the last column and only those logits are made.
        logits = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
        targets = tokens[:, -longest:]
        chosen = logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0].tolist()
        return [row[longest - len(continuation) :] for row, (_, continuation) in zip(chosen, rows, strict=True)]

    def encode_opening(self, text: str) -> list[int]:
        """Token ids of an answer that begins with ``text``, as they stand after a dialogue.

        Tokenised within a dialogue, as training does it: by itself a text would begin with another token than after
        the opening of a turn in many tokenizers (a blank that SentencePiece puts before the first word).

        Raises:
            InputError: the chat template writes an answer otherwise than it opens one.
        """
        asked: list[Message] = [
            {"role": "user", "content": "hello"}
        ]  # which one does not matter, a turn ends after it
        prompt = encode(asked, self.tokenizer)
        answered = plain_messages([*asked, {"role": "assistant", "content": text}], self.tokenizer)
        try:
            ids = self.tokenizer.apply_chat_template(
                answered, continue_final_message=True, tokenize=True, return_dict=True
            )["input_ids"]
        except ValueError as error:
            raise InputError(
                f"{self.tokenizer.name_or_path}: the chat template does not write {text!r} as it is."
            ) from error
        if ids[: len(prompt)] != prompt:
            raise InputError(
                f"{self.tokenizer.name_or_path}: the prompt is not a prefix of prompt and answer in this chat "
                "template. Give a template that only appends (`chat_template_path`)."
            )
        return list(ids[len(prompt) :])

    # -- plumbing --------------------------------------------------------------------------------------------

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(row) for row in rows)
        tokens = torch.tensor([[self._pad] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return tokens.to(self._model.device), mask.to(self._model.device)

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
        if not self._adapters:
            self._model = PeftModel.from_pretrained(self._model, str(adapter.path), adapter_name=name).eval()
        elif name not in self._adapters:
            self._model.load_adapter(str(adapter.path), adapter_name=name)
        self._adapters.add(name)
        self._model.set_adapter(name)
        self._model.requires_grad_(False)

    def close(self) -> None:
        """Give the memory back: the model is gone after this."""
        del self._model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _load(model: str, revision: str | None, dtype: str, quantization: Any, device: torch.device) -> tuple[Any, Any]:
    from pipeline.inputs.model import require_model_folder

    require_model_folder(model)
    transformers_logging.disable_progress_bar()  # one bar a shard and a rank says nothing
    # ZeRO-3 would divide this model as well, and gather it for every token, by all ranks in step. Training asks anew.
    unset_hf_deepspeed_config()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
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
            f"{model}: cannot be loaded ({str(error).splitlines()[0]}). Give a Hub id or a folder with config.json, "
            "tokenizer files and *.safetensors weights as `model_name_or_path`."
        ) from error
    return tokenizer, loaded.eval()


def _end_tokens(config: GenerationConfig | None, tokenizer: Any) -> list[int]:
    ends = config.eos_token_id if config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    found = {token for token in [*listed, tokenizer.eos_token_id] if token is not None}
    if not found:
        raise InputError(f"{tokenizer.name_or_path}: has no end-of-sequence token, so no answer could ever end.")
    return sorted(found)


def _too_long(prompt_tokens: int, wanted: int, context: int) -> Completion:
    return Completion(
        "",
        [],
        "prompt_too_long",
        prompt_tokens,
        f"{prompt_tokens} prompt tokens and {wanted} new ones do not fit the context of {context}",
    )
