"""What the speed benchmarks share: a Llama with 58.5 M random parameters, texts of mixed lengths, and summaries."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

NAME = "random llama, 58.5 M"
VOCABULARY = 32_000
END, UNKNOWN = "<end>", "<unknown>"
END_EVERY = 100
"""One token in this many ends an answer, so answers of a model that draws uniformly have about this many tokens."""

TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} "
    "{% if message['role'] == 'assistant' %}<end> {% endif %}{% endfor %}"
)


def make_model(folder: Path) -> None:
    """Save random weights, and a tokenizer whose words are numbers: a text of n words has n tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = list(range(0, VOCABULARY, END_EVERY))
    model.save_pretrained(folder)
    words = [END, UNKNOWN, *map(str, range(2, VOCABULARY))]
    ids = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    ids.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=ids, eos_token=END, pad_token=END, unk_token=UNKNOWN)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def mixed_texts(rows: int, shortest: int, longest: int, seed: int) -> list[str]:
    """Texts of ``shortest`` to ``longest`` tokens, both ends included, in random order."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, rows)
    return [" ".join(map(str, rng.integers(2, VOCABULARY, length))) for length in lengths]


def summary(values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Median and range."""
    low, high = round(min(values), digits), round(max(values), digits)
    return {"median": round(statistics.median(values), digits), "range": [low, high]}


def machine() -> dict[str, Any]:
    """The machine that the numbers were measured on."""
    processor = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return {"processor": processor, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
