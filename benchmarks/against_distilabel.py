"""Seconds for a round (generate, critique, rewrite), against the same round written in distilabel.

    python -m venv .venv-distilabel
    .venv-distilabel/bin/pip install -c constraints.txt torch==2.13.0 "distilabel[hf-transformers]==1.5.3" requests
    python benchmarks/against_distilabel.py --distilabel_python .venv-distilabel/bin/python

(distilabel 1.5.3 imports requests, which nothing in that environment depends on any more.)

Both use the same weights, prompts, chat template, principles, sampling (temperature 1), precision and maximum answer
length. Ours is the stages `generate` and `refine` on a run directory, including everything they record; theirs is
`distilabel_round.py`, once as distilabel ships, and once with transformers made to decode a batch of rows together,
for which distilabel has no setting. The ways take turns. Draws differ, so seconds per token are reported next to
seconds per round; tokens are counted in the same way for all, in the texts that came out.

distilabel runs its three steps concurrently, each with its own process and model, and a step waits for whole batches
from the step before. So it is measured with small batches and one thread per step, which keeps all cores busy; the
batched version both like this (a quarter of the rows per batch) and with our batch size and all threads for each step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from random_llama import NAME, machine, make_model, mixed_texts, summary
from transformers import AutoTokenizer

from pipeline import sandbox
from pipeline.inputs.constitution import draw_principles, load_constitution
from pipeline.inputs.templates import load_templates
from pipeline.runs.tables import read_table

PROJECT = Path(__file__).resolve().parents[1]
TEMPLATES = PROJECT / "constitutions" / "templates" / "sandbox"
STEPS = ("response", "critique", "revision")
OURS = """
import sys
from pipeline import command, generate, refine
argv = sys.argv[1:]
session = command.open_session(command.parse(argv, command.StageOptions), argv)
for stage in (generate, refine):
    stage.run(session, 1)
session.close()
"""
"""What `pipeline/iterate.py` does with the first half of a round."""


class Case(NamedTuple):
    """A model and its inputs."""

    name: str
    model: Path
    prompts: list[str]
    constitution: Path
    max_new_tokens: int
    batch_size: int


class Manner(NamedTuple):
    """How distilabel is run: rows per batch, how many of them transformers decodes together, threads per step."""

    batch_size: int
    rows_at_once: int
    threads: int


class Turn(NamedTuple):
    """One round, done one way.

    Attributes:
        whole: wall-clock seconds of the process, including its start.
        processor: CPU seconds of all processes together in that time.
        working: seconds without what comes before and after. Ours: both stages, including loading and saving.
            distilabel: from the first call of a model to the end of the last one, excluding loading.
        texts: generated texts by step; None where none was requested.
        busy: distilabel's seconds within each step's model.
    """

    whole: float
    processor: float
    working: float
    texts: dict[str, list[str | None]]
    busy: dict[str, float]


def sandbox_case(rows: int, batch_size: int) -> Case:
    """The sandbox model and its prompts."""
    asked = list(dict.fromkeys(row["prompt"] for row in sandbox.prompts("train", 2 * rows)))[:rows]
    constitution = PROJECT / "constitutions" / "sandbox" / "full.txt"
    return Case("sandbox", sandbox.model_path(), asked, constitution, 96, batch_size)


def random_case(folder: Path, rows: int, batch_size: int) -> Case:
    """The random Llama, prompts of 20 to 400 tokens, requests for critique and rewrite of 20."""
    make_model(folder)
    critique, revise = mixed_texts(2, 20, 20, seed=1)
    constitution = folder / "constitution.txt"
    constitution.write_text(f"name: numbers\ncritique: {critique}\nrevise: {revise}\n", encoding="utf-8")
    return Case(NAME, folder, mixed_texts(rows, 20, 400, seed=0), constitution, 256, batch_size)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def run(command: Sequence[str], folder: Path, threads: int, path: Path | None) -> tuple[float, float]:
    """Run a command to its end with its output kept in a file; return wall-clock and CPU seconds."""
    own = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | own
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        started, before = time.monotonic(), os.times()
        done = subprocess.run(
            command,
            cwd=folder,
            env=env | ({"PYTHONPATH": str(path)} if path else {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        seconds, after = time.monotonic() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{(folder / 'output.txt').read_text(encoding='utf-8')[-4000:]}")
    children = [after.children_user - before.children_user, after.children_system - before.children_system]
    return seconds, sum(children)


def ours(case: Case, folder: Path, threads: int) -> Turn:
    """Our round, on a fresh run directory."""
    write_lines(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in case.prompts])
    write_lines(folder / "probe.jsonl", [{"prompt": "this is never asked"}])
    recipe = {
        "model_name_or_path": str(case.model),
        "dtype": "float32",
        "prompts": "prompts.jsonl",
        "near_duplicate": 1.0,
        "max_new_tokens": case.max_new_tokens,
        "batch_size": case.batch_size,
        "constitution": str(case.constitution),
        "templates": str(TEMPLATES),
        "critique_max_new_tokens": case.max_new_tokens,
        "probe_sets": ["probe=probe.jsonl"],
        "scorers": ["length"],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-c", OURS, "--config", "recipe.yaml", "--run_dir", "run"]
    whole, processor = run(command, folder, threads, PROJECT)
    round_ = folder / "run" / "round-01"
    timing = [json.loads((round_ / stage / "manifest.json").read_text())["timing"] for stage in ("generate", "refine")]
    rows = read_table(round_ / "refine" / "refinements.parquet", list(STEPS)).to_pylist()
    texts = {step: [row.get(step) for row in rows] for step in STEPS}
    return Turn(whole, processor, sum(one["wall_seconds"] for one in timing), texts, {})


def theirs(case: Case, folder: Path, python: Path, manner: Manner) -> Turn:
    """The round as a distilabel pipeline."""
    constitution, templates = load_constitution(case.constitution), load_templates(TEMPLATES)
    rng = np.random.default_rng(0)
    rows = []
    for prompt in case.prompts:
        principle = draw_principles(constitution, 1, rng, replace=True, slice_name="all")[0]
        rows.append(
            {
                "prompt": prompt,
                "critique_request": templates.critique(principle, prompt=prompt, response=""),
                "rewrite_request": templates.rewrite(principle, prompt=prompt, response="", critique=""),
            }
        )
    write_lines(folder / "prompts.jsonl", rows)
    given = {
        **{name: str(folder / name) for name in ("cache", "calls")},
        "prompts": str(folder / "prompts.jsonl"),
        "rows": str(folder / "rows.jsonl"),
        "model": str(case.model),
        "max_new_tokens": case.max_new_tokens,
        "batch_size": manner.batch_size,
        "rows_at_once": manner.rows_at_once,
    }
    (folder / "round.json").write_text(json.dumps(given), encoding="utf-8")
    command = [str(python), str(PROJECT / "benchmarks" / "distilabel_round.py"), str(folder / "round.json")]
    whole, processor = run(command, folder, manner.threads, None)
    calls = [json.loads(line) for line in (folder / "calls").read_text(encoding="utf-8").splitlines()]
    busy = {step: sum(c["ended"] - c["began"] for c in calls if c["step"] == step) for step in STEPS}
    working = max(call["ended"] for call in calls) - min(call["began"] for call in calls)
    said = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return Turn(whole, processor, working, {step: [row[step] for row in said] for step in STEPS}, busy)


def ways_of(case: Case, python: Path, threads: int, only_as_shipped: bool) -> dict[str, Callable[[Path], Turn]]:
    """The ways that take turns, ours first."""
    small, quarter = max(1, len(case.prompts) // 16), max(1, len(case.prompts) // 4)
    manners = {
        "distilabel": Manner(small, 1, 1),
        "distilabel, batched": Manner(quarter, quarter, 1),
        "distilabel, batched as ours": Manner(case.batch_size, case.batch_size, threads),
    }
    if only_as_shipped:
        manners = {"distilabel": manners["distilabel"]}
    others = {name: partial(theirs, case, python=python, manner=manner) for name, manner in manners.items()}
    return {"ours": partial(ours, case, threads=threads), **others}


def measure(case: Case, ways: Mapping[str, Callable[[Path], Turn]], repeats: int) -> dict[str, Any]:
    """Measure the ways in turn; the others are divided by the first."""
    tokenizer = AutoTokenizer.from_pretrained(case.model)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                turn = way(Path(folder))
            if any(len(texts) != len(case.prompts) for texts in turn.texts.values()):
                raise SystemExit(f"{name}: lost rows of {len(case.prompts)}")
            tokens = sum(
                len(tokenizer(text, add_special_tokens=False)["input_ids"])
                for texts in turn.texts.values()
                for text in texts
                if text
            )
            numbers = {
                "whole_seconds": turn.whole,
                "processor_seconds": turn.processor,
                "working_seconds": turn.working,
                "new_tokens": tokens,
                "whole_ms_per_token": 1000 * turn.whole / tokens,
                "working_ms_per_token": 1000 * turn.working / tokens,
                **{f"{step}s": sum(text is not None for text in turn.texts[step]) for step in STEPS},
                **{f"{step}_model_seconds": seconds for step, seconds in turn.busy.items()},
            }
            found[name].append(numbers)
            shown = {key: round(value, 2) for key, value in numbers.items()}
            print(f"{case.name}, {name}: {shown}", flush=True)
    first, *others = found
    measures = ("whole_seconds", "whole_ms_per_token", "working_seconds", "working_ms_per_token", "processor_seconds")
    return {
        name: {key: summary([turn[key] for turn in turns], 3) for key in turns[0]} for name, turns in found.items()
    } | {
        f"{other} / {first}": {
            key: summary([a[key] / b[key] for a, b in zip(found[other], found[first], strict=True)])
            for key in measures
        }
        for other in others
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distilabel_python", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=128, help="prompts of the random Llama")
    parser.add_argument("--batch_size", type=int, default=32, help="batch size of the random Llama")
    parser.add_argument("--sandbox_rows", type=int, default=600)
    parser.add_argument("--sandbox_batch_size", type=int, default=128)
    parser.add_argument("--models", nargs="+", choices=("sandbox", "random"), default=["sandbox", "random"])
    parser.add_argument("--only_as_shipped", action="store_true", help="leave out the batched versions of distilabel")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    a = parser.parse_args()
    python = a.distilabel_python.absolute()
    versions = "from importlib.metadata import version as v; print(*map(v, ('distilabel', 'transformers', 'torch')))"
    asked = subprocess.run([str(python), "-c", versions], capture_output=True, text=True, check=True).stdout.split()
    found: dict[str, Any] = {
        "machine": machine() | {"threads": a.threads},
        "versions": dict(zip(("distilabel", "transformers", "torch"), asked, strict=True)),
        "settings": {key: value for key, value in vars(a).items() if key not in ("distilabel_python", "out")},
    }
    with tempfile.TemporaryDirectory() as folder:
        if "sandbox" in a.models:
            case = sandbox_case(a.sandbox_rows, a.sandbox_batch_size)
            found[case.name] = measure(case, ways_of(case, python, a.threads, a.only_as_shipped), a.repeats)
        if "random" in a.models:
            case = random_case(Path(folder), a.rows, a.batch_size)
            found[case.name] = measure(case, ways_of(case, python, a.threads, a.only_as_shipped), a.repeats)
    a.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
