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
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from random_llama import NAME, machine, make_model, mixed_texts, summary
from transformers import AutoModelForCausalLM

from pipeline import sandbox
from pipeline.engines.base import Request, Sampling
from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine

SAMPLING = Sampling(1.0, 1.0, 256)
RESULTS = Path(__file__).with_suffix(".json")


def mixed_requests(rows: int) -> list[Request]:
    """Prompts of 20 to 400 tokens in random order."""
    texts = mixed_texts(rows, 20, 400, seed=0)
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
    ratios = [one / other for one, other in zip(speeds["engine"], speeds["plain loop"], strict=True)]
    return {name: summary(found, 1) for name, found in speeds.items()} | {"ratio": summary(ratios)}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--sandbox", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "machine": machine(),
        "settings": {"rows": arguments.rows, "batch_size": arguments.batch_size, "repeats": arguments.repeats},
    }
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_model(Path(folder))
        found[NAME] = measure(folder, mixed_requests(arguments.rows), arguments.batch_size, arguments.repeats)
        if arguments.sandbox:
            requests = sandbox_requests(8 * arguments.rows)
            found["sandbox"] = measure(str(sandbox.model_path()), requests, arguments.batch_size, arguments.repeats)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
