"""What rewrites gain when the engine reads on from the end of the critique's dialogue.

    python benchmarks/prefixes.py [--rows 64] [--repeats 5] [--vllm_python .venv-vllm/bin/python]

Requests are as in refine: a critique is sampled in the dialogue of prompt, response and instruction; then the rewrite
in the same dialogue, followed by the critique and another instruction. Prompts have 20 to 400 tokens, responses 5 to
256, instructions 60 and 40, answers at most 256. The local engine does both alternately with and without keeping what
it computed for the critiques; vLLM caches prefixes by itself and reports how many tokens it found.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import torch
from random_llama import NAME, machine, make_model, mixed_texts, summary
from vllm_server import served

from pipeline.engines.base import Engine, Message, Request, Sampling
from pipeline.engines.local import LocalEngine
from pipeline.engines.vllm_process import vllm_version

SAMPLING = Sampling(1.0, 1.0, 256)
RESULTS = Path(__file__).with_suffix(".json")


def refine(engine: Engine, rows: int, turn: int) -> dict[str, float]:
    """Sample critiques and rewrites; return the seconds and tokens of both."""
    prompts, responses = mixed_texts(rows, 20, 400, 4 * turn), mixed_texts(rows, 5, 256, 4 * turn + 1)
    asked, rewrite = (
        mixed_texts(1, length, length, seed)[0] for length, seed in ((60, 4 * turn + 2), (40, 4 * turn + 3))
    )
    dialogues: list[list[Message]] = [
        [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": response},
            {"role": "user", "content": asked},
        ]
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    started = time.monotonic()
    critiques = engine.generate([Request(said, i, goes_on=True) for i, said in enumerate(dialogues)], SAMPLING, None)
    after_critiques = time.monotonic()
    going_on = [
        [*said, {"role": "assistant", "content": critique.text}, {"role": "user", "content": rewrite}]
        for said, critique in zip(dialogues, critiques, strict=True)
    ]
    rewrites = engine.generate([Request(said, rows + i) for i, said in enumerate(going_on)], SAMPLING, None)
    ended = time.monotonic()
    assert all(one.finish_reason in ("stop", "length") for one in [*critiques, *rewrites])
    return {
        "seconds": ended - started,
        "rewrite_seconds": ended - after_critiques,
        "prompt_tokens": sum(one.prompt_tokens for one in [*critiques, *rewrites]),
        "shared_tokens": sum(one.prompt_tokens + one.new_tokens for one in critiques),
        "new_tokens": sum(one.new_tokens for one in [*critiques, *rewrites]),
    }


def locally(model: str, rows: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Measure the local engine with and without kept prefixes, alternately."""
    ways = {
        name: LocalEngine(
            model,
            revision=None,
            dtype="float32",
            chat_template=None,
            batch_size=batch_size,
            prefix_memory=int(gib * 2**30),
        )
        for name, gib in (("kept", 4), ("not kept", 0))
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, engine in ways.items():
            found[name].append(refine(engine, rows, turn))
            print(f"{name:>9}: {found[name][-1]}", flush=True)
    pairs = list(zip(found["not kept"], found["kept"], strict=True))
    return {
        **{name: {"seconds": summary([one["seconds"] for one in turns])} for name, turns in found.items()},
        "both turns, times faster": summary([without["seconds"] / kept["seconds"] for without, kept in pairs]),
        "rewrites, times faster": summary(
            [without["rewrite_seconds"] / kept["rewrite_seconds"] for without, kept in pairs]
        ),
        "prompt tokens known already": summary([one["shared_tokens"] / one["prompt_tokens"] for one in found["kept"]]),
    }


def on_vllm(python: str, model: str, rows: int, logs: Path) -> dict[str, Any]:
    """The share of prompt tokens found in vLLM's prefix cache."""
    with served(python, model, logs) as (engine, url):
        refine(engine, rows, 0)
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
            told = reply.read().decode()
    hits, queries = (
        sum(float(value) for value in re.findall(rf"^vllm:prefix_cache_{name}_total{{.*}} (\S+)$", told, re.MULTILINE))
        for name in ("hits", "queries")
    )
    return {"version": vllm_version(python), "tokens": queries, "found": hits, "hit rate": round(hits / queries, 3)}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--vllm_python")
    arguments = parser.parse_args()
    settings = {"rows": arguments.rows, "batch_size": arguments.batch_size, "repeats": arguments.repeats}
    found: dict[str, Any] = {"machine": machine(), "settings": settings, "model": NAME}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model")
        with torch.inference_mode():
            found["local engine"] = locally(
                str(Path(folder) / "model"), arguments.rows, arguments.batch_size, arguments.repeats
            )
        if arguments.vllm_python:
            found["vllm"] = on_vllm(
                arguments.vllm_python, str(Path(folder) / "model"), arguments.rows, Path(folder) / "logs"
            )
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
