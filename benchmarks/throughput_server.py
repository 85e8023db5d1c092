"""Speed of the server engine against vLLM's own offline `LLM.generate`, on the same requests and weights.

    python benchmarks/throughput_server.py --vllm_python .venv-vllm/bin/python [--models random] [--requests 1000]

Two models: the sandbox's, whose answers cost so little that the client's overhead shows, and a Llama with 58.5 M
random parameters and prompts of 20 to 400 tokens. Both programs stay loaded and take turns, with the other one
stopped; every turn has new prompts, so that no cache has seen them. Results go to throughput_server.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from random_llama import NAME, machine, make_model, mixed_texts, summary
from vllm_server import alone, processes_of, served

from pipeline import sandbox
from pipeline.engines.base import Request, Sampling
from pipeline.engines.chat import encode
from pipeline.engines.server import load_reader
from pipeline.engines.vllm_process import lora_targets, server_environment, vllm_version

TOKENS = 64

OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
given = json.loads(sys.stdin.readline())
llm = LLM(**given["llm"])
print("READY", flush=True)
for line in sys.stdin:
    turn = json.loads(line)
    params = [SamplingParams(temperature=1.0, top_p=1.0, max_tokens=given["tokens"], seed=seed,
                             stop_token_ids=given["ends"]) for seed in turn["seeds"]]
    prompts = [{"prompt_token_ids": ids} for ids in turn["prompts"]]
    started = time.perf_counter()
    found = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    print("DONE", json.dumps([seconds, sum(len(one.outputs[0].token_ids) for one in found)]), flush=True)
"""


class Offline:
    """`LLM.generate` in the other environment, loaded and waiting for its turn."""

    def __init__(self, python: str, given: dict[str, Any], log: Path) -> None:
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [python, "-c", OFFLINE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=server_environment(os.environ, None),
            )
        self._log = log
        self.process = psutil.Process(self._process.pid)
        self._say(given)
        self._wait_for("READY")

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _wait_for(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        raise SystemExit(f"vLLM ended:\n{self._log.read_text()[-3000:]}")

    def generate(self, prompts: list[list[int]], seeds: list[int]) -> tuple[float, int]:
        """Seconds and tokens of one turn."""
        self._say({"prompts": prompts, "seeds": seeds})
        seconds, tokens = json.loads(self._wait_for("DONE"))
        return seconds, tokens

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(
    python: str, model: str, ask: Callable[[int], list[Request]], repeats: int, folder: Path
) -> dict[str, Any]:
    """Let both take turns; return the tokens per second of each, and what a request costs this process.

    Args:
        python: Python of the environment with vLLM.
        model: folder of the model.
        ask: function from turn to its requests.
        repeats: number of turns.
        folder: folder for logs.
    """
    reader = load_reader(model, revision=None, chat_template=None)
    llm = {
        "model": model,
        "dtype": "float32",
        "enforce_eager": True,
        "enable_lora": True,
        "max_lora_rank": 8,
        "max_loras": 1,
        "max_cpu_loras": 4,
        "lora_target_modules": lora_targets(model, None),
        "enable_chunked_prefill": False,
        "generation_config": "vllm",
        "gpu_memory_utilization": 0.25,
    }
    rates: dict[str, list[float]] = {"server engine": [], "LLM.generate": []}
    overhead, tokens_read = [], 0
    with served(python, model, folder, limit=1000) as (engine, _):
        servers = processes_of("vllm")
        with alone(*servers):
            offline = Offline(python, {"llm": llm, "tokens": TOKENS, "ends": reader.ends}, folder / "offline.log")
        for turn in range(repeats + 1):
            requests = ask(turn)[: None if turn else 32]  # the first warms both up
            prompts = [encode(request.messages, reader.tokenizer) for request in requests]
            with alone(*servers):
                seconds, tokens = offline.generate(prompts, [request.seed for request in requests])
            with alone(offline.process):
                started, busy = time.perf_counter(), time.process_time()
                found = engine.generate(requests, Sampling(1.0, 1.0, TOKENS), None)
                took, busy = time.perf_counter() - started, time.process_time() - busy
            assert all(one.finish_reason != "error" for one in found)
            if turn:
                rates["LLM.generate"].append(tokens / seconds)
                rates["server engine"].append(sum(one.new_tokens for one in found) / took)
                overhead.append(1000 * busy / len(requests))
                tokens_read = sum(map(len, prompts))
                print({name: round(values[-1]) for name, values in rates.items()}, flush=True)
        offline.close()
    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    return {
        "requests": len(requests),
        "prompt tokens": tokens_read,
        "tokens per second": {name: summary(values, 1) for name, values in rates.items()},
        "server engine, times LLM.generate": summary(ratios),
        "client CPU, ms a request": summary(overhead),
    }


def of_the_sandbox(turn: int) -> list[Request]:
    """A thousand prompts from the sandbox."""
    asked = sandbox.prompts("train", 1000, seed=turn)
    return [Request([{"role": "user", "content": row["prompt"]}], seed) for seed, row in enumerate(asked)]


def of_mixed_lengths(count: int, turn: int) -> list[Request]:
    """``count`` prompts of random words."""
    texts = mixed_texts(count, 20, 400, turn)
    return [Request([{"role": "user", "content": text}], seed) for seed, text in enumerate(texts)]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm_python", required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=("sandbox", "random"), default=["sandbox", "random"])
    parser.add_argument("--requests", type=int, default=1000, help="requests per turn to the random Llama")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    python = str(Path(options.vllm_python).absolute())
    found: dict[str, Any] = {"machine": {**machine(), "vllm": vllm_version(python)}}
    found["settings"] = {"new tokens at most": TOKENS, "repeats": options.repeats}
    with tempfile.TemporaryDirectory() as name:
        random = Path(name) / "model"
        make_model(random)
        asked = {
            "sandbox": ("sandbox", sandbox.model_path(), of_the_sandbox),
            "random": (NAME, random, partial(of_mixed_lengths, options.requests)),
        }
        for title, model, ask in map(asked.__getitem__, options.models):
            folder = Path(name) / f"logs of {title}"
            folder.mkdir()
            found[title] = measure(python, str(model), ask, options.repeats, folder)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
