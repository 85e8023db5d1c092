"""Tokens per second of the local engine, of a plain `model.generate` loop, and of a vLLM server on the CPU.

    python benchmarks/throughput.py [--rows 64] [--repeats 5] [--batch_size 32] [--vllm_python .venv-vllm/bin/python]

The model is a Llama with 58.5 M random parameters, prompts have 20 to 400 tokens, and answers end by chance (one token
in 100 is an end token) or at 256 tokens. The loop takes prompts in data order, pads each batch and calls `generate`,
as most scripts do. vLLM gets all requests at once from the server engine. All take turns on the same prompts, new ones
each turn; then the same with the sandbox's own model and prompts. Medians and ranges go to throughput.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from random_llama import NAME, machine, make_model, mixed_texts, summary
from transformers import AutoModelForCausalLM
from vllm_server import alone, processes_of, served

from pipeline import sandbox
from pipeline.engines.base import Engine, Request, Sampling
from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine
from pipeline.engines.server import ServerEngine
from pipeline.engines.vllm_process import vllm_version

SAMPLING = Sampling(1.0, 1.0, 256)
RESULTS = Path(__file__).with_suffix(".json")


def mixed_requests(rows: int, turn: int) -> list[Request]:
    """Prompts of 20 to 400 tokens in random order."""
    texts = mixed_texts(rows, 20, 400, seed=turn)
    return [Request([{"role": "user", "content": text}], seed) for seed, text in enumerate(texts)]


def sandbox_requests(rows: int, turn: int) -> list[Request]:
    """Prompts of the sandbox."""
    asked = sandbox.prompts("train", rows, seed=turn)
    return [Request([{"role": "user", "content": row["prompt"]}], seed) for seed, row in enumerate(asked)]


def plain_loop(model: Any, tokenizer: Any, requests: Sequence[Request], batch_size: int) -> int:
    """Answer in data order with `generate`; return the number of new tokens, not counting those after an end token."""
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


def measure(
    model: str, ask: Callable[[int], list[Request]], options: argparse.Namespace, vllm: ServerEngine | None
) -> dict[str, Any]:
    """Tokens per second of all ways, which take turns.

    Args:
        model: folder of the model.
        ask: function from turn to its requests.
        options: command-line options.
        vllm: engine over a vLLM server with the model, or None.
    """
    engine = LocalEngine(model, revision=None, dtype="float32", chat_template=None, batch_size=options.batch_size)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def by(one: Engine) -> Callable[[Sequence[Request]], int]:
        return lambda requests: sum(answer.new_tokens for answer in one.generate(requests, SAMPLING, None))

    ways: dict[str, Callable[[Sequence[Request]], int]] = {
        "local engine": by(engine),
        "plain loop": lambda requests: plain_loop(plain, engine.tokenizer, requests, options.batch_size),
        **({"vllm server": by(vllm)} if vllm else {}),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    servers = processes_of("vllm")
    for turn in range(options.repeats + 1):
        for name, way in ways.items():
            torch.manual_seed(turn)
            requests = ask(turn)[: None if turn else 32]  # the first warms up
            with alone(*([] if name == "vllm server" else servers)):
                started = time.monotonic()
                tokens = way(requests)
                speed = tokens / (time.monotonic() - started)
            if turn:
                speeds[name].append(speed)
                print(f"{name:>12}: {tokens:,} tokens, {speed:,.0f} tokens/s", flush=True)
    ours = speeds["local engine"]
    return {
        "tokens per second": {name: summary(found, 1) for name, found in speeds.items()},
        "local engine, times the other": {
            name: summary([a / b for a, b in zip(ours, theirs, strict=True)])
            for name, theirs in speeds.items()
            if theirs is not ours
        },
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="requests per turn; 8 times as many on the sandbox")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--vllm_python")
    options = parser.parse_args()
    found: dict[str, Any] = {
        "machine": machine(),
        "settings": {"rows": options.rows, "batch_size": options.batch_size, "repeats": options.repeats},
    }
    if options.vllm_python:
        found["machine"]["vllm"] = vllm_version(options.vllm_python)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        random = Path(folder) / "model"
        make_model(random)
        asked: dict[str, tuple[str, Callable[[int], list[Request]]]] = {
            NAME: (str(random), partial(mixed_requests, options.rows)),
            "sandbox": (str(sandbox.model_path()), partial(sandbox_requests, 8 * options.rows)),
        }
        for name, (model, ask) in asked.items():
            with ExitStack() as open_while:
                vllm = None
                if options.vllm_python:
                    logs = Path(folder) / f"logs of {name}"
                    vllm = open_while.enter_context(served(options.vllm_python, model, logs))[0]
                found[name] = measure(model, ask, options, vllm)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
