"""Speed of the server engine beside vLLM's own offline `LLM.generate`, on the same requests and weights.

    python benchmarks/throughput_server.py --vllm_python .venv-vllm/bin/python

Both stand ready at the same time and take turns, so that whatever else the machine does meets both alike. The model
is a Llama with random weights; prompts and answers are of mixed lengths. Results: benchmarks/throughput_server.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engines.balance import Patience
from pipeline.engines.base import Request, Sampling
from pipeline.engines.chat import encode
from pipeline.engines.server import ServerEngine, load_reader
from pipeline.engines.vllm_process import Vllm, VllmServers, lora_targets, server_environment, vllm_version
from pipeline.sandbox import model_path

OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
given = json.loads(sys.stdin.readline())
llm = LLM(**given["llm"])
print("READY", flush=True)
for line in sys.stdin:
    turn = json.loads(line)
    params = [SamplingParams(temperature=1.0, top_p=1.0, max_tokens=given["tokens"], seed=seed, stop_token_ids=[5])
              for seed in turn["seeds"]]
    prompts = [{"prompt_token_ids": ids} for ids in turn["prompts"]]
    started = time.perf_counter()
    found = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    print("DONE", json.dumps([seconds, sum(len(one.outputs[0].token_ids) for one in found)]), flush=True)
"""


def make_model(folder: Path, width: int, layers: int) -> int:
    """Save a random Llama with the sandbox's tokenizer; return its number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(model_path())
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = width, width * 27 // 10, layers
    config.num_attention_heads = config.num_key_value_heads = width // 64
    config.head_dim = 64
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path()).save_pretrained(folder)
    return sum(weights.numel() for weights in model.parameters())


def make_requests(n: int, reader: Any, turn: int) -> list[Request]:
    """Prompts of 20 to 400 words; others every turn, so that no cache of prefixes has seen them."""
    rng = np.random.default_rng(turn)
    words = [word for word in reader.tokenizer.get_vocab() if word.isalpha()]
    lengths = rng.integers(20, 401, n)
    return [
        Request([{"role": "user", "content": " ".join(rng.choice(words, length))}], seed=i)
        for i, length in enumerate(lengths)
    ]


class Offline:
    """`LLM.generate` in the other environment, waiting for its turn."""

    def __init__(self, python: str, given: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [python, "-c", OFFLINE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=server_environment(os.environ, None),
        )
        self._say(json.dumps(given))
        self._wait_for("READY")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _wait_for(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        raise SystemExit("vLLM ended; run its part by hand to see why")

    def generate(self, prompts: list[list[int]], seeds: list[int]) -> tuple[float, int]:
        """Seconds and tokens of one turn."""
        self._say(json.dumps({"prompts": prompts, "seeds": seeds}))
        seconds, tokens = json.loads(self._wait_for("DONE"))
        return seconds, tokens

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm_python", required=True)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        parameters = make_model(model, options.width, options.layers)
        result = measure(options, str(model), Path(folder) / "logs") | {"parameters": parameters}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(options: argparse.Namespace, model: str, logs: Path) -> dict[str, Any]:
    """Take turns."""
    read = partial(load_reader, model, revision=None, chat_template=None)
    reader = read()
    given = {
        "llm": {
            "model": model,
            "dtype": "float32",
            "enforce_eager": True,
            "enable_lora": True,
            "max_lora_rank": 8,
            "max_loras": 1,
            "lora_target_modules": lora_targets(model, None),
            "enable_chunked_prefill": False,
            "generation_config": "vllm",
        },
        "tokens": options.tokens,
    }
    python = str(Path(options.vllm_python).absolute())
    servers = VllmServers(Vllm(python, model, None, "float32", 8, None, 1, 0.9, logs))
    engine = ServerEngine(
        model,
        servers.addresses,
        reader=read,
        key_variables={},
        limit=options.requests,
        patience=Patience(3, 3600.0),
        stop=servers.stop,
    )
    sampling = Sampling(1.0, 1.0, options.tokens)
    offline = Offline(python, given)
    rates: dict[str, list[float]] = {"server": [], "offline": []}
    overhead = []
    for turn in range(options.repeats + 1):
        requests = make_requests(options.requests if turn else 20, reader, turn)
        prompts = [encode(request.messages, reader.tokenizer) for request in requests]
        seconds, tokens = offline.generate(prompts, [request.seed for request in requests])
        started, busy = time.perf_counter(), time.process_time()
        found = engine.generate(requests, sampling, None)
        took, busy = time.perf_counter() - started, time.process_time() - busy
        assert all(one.finish_reason != "error" for one in found)
        if turn:  # the first warms both up
            rates["offline"].append(tokens / seconds)
            rates["server"].append(sum(one.new_tokens for one in found) / took)
            overhead.append(1000 * busy / len(requests))
    engine.close()
    offline.close()
    ratios = [ours / theirs for ours, theirs in zip(rates["server"], rates["offline"], strict=True)]
    return {
        "tokens_per_second": {name: _summary(values) for name, values in rates.items()},
        "server_over_offline": _summary(ratios),
        "client_cpu_ms_per_request": _summary(overhead),
        "requests": len(requests),
        "prompt_tokens": {"mean": statistics.mean(map(len, prompts)), "most": max(map(len, prompts))},
        "new_tokens_at_most": options.tokens,
        "vllm": vllm_version(python),
        "python": sys.version.split()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[1]:.1f} meanwhile",
    }


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


if __name__ == "__main__":
    main()
