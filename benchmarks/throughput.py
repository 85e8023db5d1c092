"""Tokens per second of the local engine beside a plain `model.generate` loop: same model, prompts and batch size.

    python benchmarks/throughput.py [--rows 128] [--repeats 5] [--batch_size 32] [--sandbox]

The model is a Llama of 58.5 M random parameters, prompts have 20 to 400 tokens, and answers end by chance (one token
in 100 is an end token) or at 256 tokens. The loop takes prompts in data order, pads each batch and calls `generate`,
as most scripts do. Both ways take turns within one process; medians and ranges of the turns go to throughput.json next
to this script. With --sandbox the sandbox's own model and prompts as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline import sandbox
from pipeline.engines.base import Request, Sampling
from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine

VOCABULARY = 32_000
END_EVERY = 100
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SAMPLING = Sampling(1.0, 1.0, 256)
RESULTS = Path(__file__).with_suffix(".json")


def make_model(folder: Path) -> None:
    """A Llama with random weights and a tokenizer whose words are numbers: a prompt of n words has n tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=1024,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = list(range(0, VOCABULARY, END_EVERY))
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0", pad_token="0", unk_token="0")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def mixed_requests(rows: int) -> list[Request]:
    """Prompts of 20 to 400 tokens in random order."""
    rng = np.random.default_rng(0)
    texts = (" ".join(map(str, rng.integers(1, VOCABULARY, size=rng.integers(20, 401)))) for _ in range(rows))
    return [Request([{"role": "user", "content": text}], seed) for seed, text in enumerate(texts)]


def sandbox_requests(rows: int) -> list[Request]:
    """Prompts of the sandbox."""
    asked = sandbox.prompts("train", rows)
    return [Request([{"role": "user", "content": row["prompt"]}], seed) for seed, row in enumerate(asked)]


def plain_loop(model: Any, tokenizer: Any, requests: Sequence[Request], batch_size: int) -> int:
    """Answer in data order with `generate`; return the number of new tokens, those after an end not counted."""
    ends = model.generation_config.eos_token_id
    ends = torch.tensor(ends if isinstance(ends, list) else [ends])
    tokenizer.padding_side = "left"
    count = 0
    for start in range(0, len(requests), batch_size):
        texts = [encode(request.messages, tokenizer) for request in requests[start : start + batch_size]]
        batch = tokenizer.pad({"input_ids": texts}, return_tensors="pt")
        output = model.generate(
            **batch,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=SAMPLING.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        ended = torch.isin(output[:, batch["input_ids"].shape[1] :], ends).int()
        count += int((ended.cumsum(1) - ended == 0).sum())
    return count


def measure(model: str, requests: Sequence[Request], batch_size: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of both ways, taking turns."""
    engine = LocalEngine(model, revision=None, dtype="float32", chat_template=None, batch_size=batch_size)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def by_engine() -> int:
        return sum(len(answer.token_ids) for answer in engine.generate(requests, SAMPLING, None))

    def by_loop() -> int:
        return plain_loop(plain, engine.tokenizer, requests, batch_size)

    ways: dict[str, Callable[[], int]] = {"engine": by_engine, "plain loop": by_loop}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            torch.manual_seed(0)
            started = time.monotonic()
            tokens = way()
            speeds[name].append(tokens / (time.monotonic() - started))
            print(f"{name:>12}: {tokens:,} tokens, {speeds[name][-1]:,.0f} tokens/s", flush=True)
    found: dict[str, Any] = {
        name: {"median": round(statistics.median(s), 1), "range": [round(min(s), 1), round(max(s), 1)]}
        for name, s in speeds.items()
    }
    ratios = [one / other for one, other in zip(speeds["engine"], speeds["plain loop"], strict=True)]
    found["ratio"] = {
        "median": round(statistics.median(ratios), 2),
        "range": [round(f(ratios), 2) for f in (min, max)],
    }
    return found


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--sandbox", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "settings": {"rows": arguments.rows, "batch_size": arguments.batch_size, "repeats": arguments.repeats},
    }
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_model(Path(folder))
        found["random llama, 58.5 M"] = measure(
            folder, mixed_requests(arguments.rows), arguments.batch_size, arguments.repeats
        )
        if arguments.sandbox:
            requests = sandbox_requests(8 * arguments.rows)
            found["sandbox"] = measure(str(sandbox.model_path()), requests, arguments.batch_size, arguments.repeats)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
