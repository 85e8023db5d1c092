"""What the pipeline costs apart from its models: its real stages on many rows, with an engine that answers at once.

    python benchmarks/bookkeeping.py [--profile ROWS SAMPLES]

Loads prompts from a JSONL file (ids, cells, near-duplicates of a thousand probe prompts), generates, refines (critique
and rewrite), samples every prompt as a probe and scores the samples by `length` and `loops`: all through the code that
a run uses, with seeds, templates, dialogues, defects, chunks (of 2,048 rows) on disk, tables and manifests. Models,
the seconds of the engine in their place, other scorers and statistics are left out. Each size runs in a process of its
own, which reports CPU seconds and wall-clock seconds (the latter include whatever else ran on the machine), rows per
second of each, and its peak memory so far. Writes bookkeeping.json next to this script.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]

SIZES = ((10_000, 4), (100_000, 4), (1_000_000, 4), (1_000_000, 1))
"""Rows, and samples per prompt."""

LIMITS = {"rows_per_second_and_core": 20_000, "peak_gib": 2.0}

_CONSTITUTION = (PROJECT / "constitutions" / "honest.txt").read_text(encoding="utf-8")

WORDS = [word for word in _CONSTITUTION.split() if not word.endswith(":")]
"""Words without the file's keys: "critique:" and "revise:" would be looked into as talk about the rewriting."""

PROMPT_WORDS, ANSWER_WORDS = 20, 30

RECIPE = f"""\
model_name_or_path: sandbox
dtype: float32
num_rounds: 1
constitution: {PROJECT}/constitutions/harmless.txt
templates: {PROJECT}/constitutions/templates
scorers: [length, loops]
chunk_rows: 2048
"""


class Instant:
    """An engine that has every answer ready: thirty words and forty token ids, different for every seed."""

    seconds = 0.0
    """Wall time."""

    cpu_seconds = 0.0

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._answers = [" ".join(rng.choice(WORDS, ANSWER_WORDS)) for _ in range(997)]
        self._ids = rng.integers(0, 50_000, (997, 40)).tolist()

    def generate(self, requests: Sequence[Any], sampling: Any, adapter: Any) -> list[Any]:
        """One completion per request."""
        from pipeline.engines.base import Completion

        started, used = time.perf_counter(), time.process_time()
        answers = [
            Completion(
                f"{request.seed} {self._answers[request.seed % 997]}", self._ids[request.seed % 997], "stop", 60
            )
            for request in requests
        ]
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - used
        return answers


class InstantRoles:
    """Takes the place of `engines.roles.Roles` in a session."""

    def __init__(self, engine: Instant) -> None:
        self._engine = engine

    @property
    def seconds(self) -> float:
        """Wall time spent inside the engine so far."""
        return self._engine.seconds

    def named(self, name: str, policy: Any) -> Any:
        """The engine, whichever role is asked for."""
        from pipeline.engines.roles import Role

        return Role(self._engine, None)

    def policy(self, adapter: Any) -> Any:
        """The engine."""
        return self.named("policy", adapter)

    def base(self) -> Any:
        """The engine."""
        return self.named("base", None)

    def describe(self, name: str, device: str) -> dict[str, Any]:
        """What manifests say of it."""
        return {"name": "instant"}


def write_prompts(path: Path, count: int, seed: int) -> None:
    """Write a JSONL file of ``count`` prompts of twenty words, no two alike."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(rng.choice(WORDS, PROMPT_WORDS))
            file.write(json.dumps({"prompt": f"{text} {seed} {number}", "slice": f"topic-{number % 10}"}) + "\n")


class Stopwatch:
    """Times steps and records what they used, without what the engine did in them."""

    def __init__(self, engine: Instant) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._engine = engine

    def time(self, name: str, rows: int, step: Callable[[], Any]) -> Any:
        """Run a step on this many rows."""
        engine = self._engine
        engine_wall, engine_cpu = engine.seconds, engine.cpu_seconds
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        result = step()
        wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        wall -= engine.seconds - engine_wall
        system = used.ru_stime - before.ru_stime
        cpu = used.ru_utime - before.ru_utime + system - (engine.cpu_seconds - engine_cpu)
        self.steps[name] = {
            "rows": rows,
            "cpu_seconds": round(cpu, 2),
            "of_them_in_system_calls": round(system, 2),
            "wall_seconds": round(wall, 2),
            "rows_per_cpu_second": round(rows / cpu),
            "rows_per_wall_second": round(rows / wall),
            "peak_gib": round(used.ru_maxrss / 2**20, 3),
        }
        return result


def growth(sizes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Exponent with which each stage's CPU seconds grow in the rows, over sizes with the same samples per prompt."""
    alike = [size for size in sizes if size["samples_of_a_prompt"] == SIZES[0][1]]
    return {
        stage: round(
            float(
                np.polyfit(
                    np.log([size["stages"][stage]["rows"] for size in alike]),
                    np.log([size["stages"][stage]["cpu_seconds"] for size in alike]),
                    1,
                )[0]
            ),
            2,
        )
        for stage in alike[0]["stages"]
    }


def measure_size(rows: int, samples: int, folder: Path, profile: bool = False) -> dict[str, Any]:
    """Take this many rows through the stages, in this process."""
    from pipeline import command, generate, refine
    from pipeline.measuring.probing import Probe, probe
    from pipeline.runs import ranks
    from pipeline.setup.loading import load_session

    write_prompts(folder / "prompts.jsonl", rows // samples, 0)
    write_prompts(folder / "probes.jsonl", 1000, 1)
    (folder / "recipe.yaml").write_text(
        RECIPE + f"prompts: {folder}/prompts.jsonl\nsamples_per_prompt: {samples}\n"
        f"probe_sets: [panel={folder}/probes.jsonl]\nprobe_samples: {samples}\n"
    )
    argv = ["--config", str(folder / "recipe.yaml"), "--run_dir", str(folder / "run")]
    ranks.start()
    parsed = command.parse(argv, command.StageOptions)
    started_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    engine = Instant()
    watch = Stopwatch(engine)
    session = watch.time("load", rows // samples, lambda: load_session(parsed))
    session.roles = InstantRoles(engine)  # type: ignore[assignment]
    what = Probe(
        folder=session.run.stage_dir(0, "measure"),
        round=0,
        adapter=None,
        prompts={"panel": session.prompts.prompts},
        samples=samples,
        scorers=session.recipe.scorers,
        noise="measure",
    )
    for name, step in (
        ("generate", lambda: generate.run(session, 1)),
        ("refine", lambda: refine.run(session, 1)),
        ("measure", lambda: probe(session, what)),
    ):
        profiler = cProfile.Profile()
        if profile:
            profiler.enable()
        watch.time(name, rows, step)
        profiler.disable()
        if profile:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    return {"rows": rows, "samples_of_a_prompt": samples, "started_gib": round(started_gib, 3), "stages": watch.steps}


def in_own_process(rows: int, samples: int) -> dict[str, Any]:
    """Measure one size in a fresh process, so that its peak memory is its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--size", str(rows), str(samples)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    measured: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(measured), file=sys.stderr, flush=True)
    return measured


def main() -> None:
    """Measure every size, record, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(
        "--profile", type=int, nargs=2, metavar=("ROWS", "SAMPLES"), help="show where the time of one size goes"
    )
    arguments = parser.parse_args()
    if one := arguments.size or arguments.profile:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure_size(*one, Path(folder), bool(arguments.profile)), indent=2))
        return
    sizes = [in_own_process(*size) for size in SIZES]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}",
        "limits": LIMITS,
        "words": {"prompt": PROMPT_WORDS, "answer": ANSWER_WORDS},
        "sizes": sizes,
        "exponents": growth(sizes),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
