"""A sequence classifier or reward model in this process: texts in, raw outputs of its head out."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from pipeline.engines.base import Message
from pipeline.engines.chat import as_plain_text, plain_messages, set_chat_template
from pipeline.engines.onednn import use_onednn
from pipeline.errors import EngineError, first_line
from pipeline.inputs.classified import ClassifierTemplate
from pipeline.inputs.model import require_model_folder

_OVERLAP = 4
"""Neighbouring windows of a long text overlap by one part in this many, so that no token is only seen at an edge."""


class SequenceClassifier:
    """A classifier, loaded on first use.

    Args:
        model: Hub id or folder with safetensors.
        revision: Hub revision, or None.
        dtype: name of a torch dtype.
        batch_size: windows classified at once, per process.
        template: template of the text it is shown; None for the chat template of a model with one output and a
            template, else for the answer alone.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str,
        batch_size: int,
        template: ClassifierTemplate | None,
    ) -> None:
        self._name, self._revision = model, revision
        self._dtype, self._batch_size, self._template = dtype, batch_size, template
        self._loaded: tuple[Any, Any] | None = None

    def classify(self, dialogues: Sequence[tuple[Sequence[Message], str]]) -> list[np.ndarray]:
        """Raw outputs for answers in their dialogues, each [n_windows, n_labels].

        A text longer than the model's context is split into several windows; one without any token has none.

        Raises:
            EngineError: the model cannot be loaded, or has no trained head.
        """
        if self._loaded is None:
            self._loaded = _load(self._name, self._revision, self._dtype)
        tokenizer, model = self._loaded
        windows = [
            (i, ids)
            for i, (messages, response) in enumerate(dialogues)
            for ids in self._windows(messages, response, tokenizer, model)
        ]
        # Rows of equal length share a batch: none is padded, so none depends on which others are in its batch.
        order = sorted(range(len(windows)), key=lambda k: len(windows[k][1]))
        found: list[np.ndarray] = [np.zeros(0)] * len(windows)
        for batch in _batches(order, [len(ids) for _, ids in windows], self._rows_at_once(model)):
            ids = torch.tensor([windows[k][1] for k in batch], device=model.device)
            with torch.inference_mode():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            for k, row in zip(batch, logits.float().cpu().numpy(), strict=True):
                found[k] = row
        of_text: list[list[np.ndarray]] = [[] for _ in dialogues]
        for (i, _), row in zip(windows, found, strict=True):
            of_text[i].append(row)
        none = np.zeros((0, model.config.num_labels))
        return [np.stack(rows) if rows else none for rows in of_text]

    def close(self) -> None:
        """Free the memory; the model is loaded again on next use."""
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _rows_at_once(self, model: Any) -> int:
        # A decoder without a padding token refuses more than one row, even of equal length.
        return self._batch_size if model.config.get_text_config().pad_token_id is not None else 1

    def _windows(self, messages: Sequence[Message], response: str, tokenizer: Any, model: Any) -> list[list[int]]:
        chat = self._template is None and model.config.num_labels == 1 and bool(tokenizer.chat_template)
        if chat:
            turns = [*messages, {"role": "assistant", "content": response}]
            text = tokenizer.apply_chat_template(plain_messages(turns, tokenizer), tokenize=False)
        elif self._template is not None:
            prompt = "\n\n".join(message["content"] for message in messages)
            text = as_plain_text(self._template.render(prompt, response), tokenizer)
        else:
            text = as_plain_text(response, tokenizer)
        longest = _longest(tokenizer, model)
        encoded = tokenizer(
            text,
            add_special_tokens=not chat,
            truncation=True,
            max_length=longest,
            stride=longest // _OVERLAP,
            return_overflowing_tokens=True,
        )
        return [list(ids) for ids in encoded["input_ids"] if len(ids)]


def _batches(order: Sequence[int], lengths: Sequence[int], rows: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for k in order:
        if not batches or len(batches[-1]) == rows or lengths[batches[-1][0]] != lengths[k]:
            batches.append([])
        batches[-1].append(k)
    return batches


def _longest(tokenizer: Any, model: Any) -> int:
    limits = [int(tokenizer.model_max_length), 10**6]
    limits.append(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0)
    # RoBERTa and its relatives number positions from just after the padding index.
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min(limit for limit in limits if limit > 0)


def _load(model: str, revision: str | None, dtype: str) -> tuple[Any, Any]:
    from accelerate import PartialState

    require_model_folder(model)
    unset_hf_deepspeed_config()  # ZeRO-3 would divide this model as well
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
        loaded, info = AutoModelForSequenceClassification.from_pretrained(
            model,
            revision=revision,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise EngineError(
            f"{model}: cannot be loaded as a classifier ({first_line(error)}). Give the Hub id or folder of "
            "a sequence classifier with *.safetensors weights: `classifier:MODEL`."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise EngineError(
            f"{model}: is not a trained classifier: it lacks the weights {', '.join(missing[:3])}, which would be "
            "random numbers. Name a model that was trained to classify."
        )
    set_chat_template(tokenizer, None)
    loaded = loaded.eval().requires_grad_(False).to(PartialState().device)
    use_onednn(loaded)
    return tokenizer, loaded
