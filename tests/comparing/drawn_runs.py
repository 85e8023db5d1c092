"""Run directories with drawn scores and samples: what a run leaves, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.drift import drift_cells
from pipeline.runs.files import write_json, write_json_lines, write_text
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import SAMPLES, SCORES, to_table, write_table

RECIPE: dict[str, Any] = {
    "seed": 7,
    "keep_dropped": [],
    "num_rounds": 2,
    "on_alarm": "warn",
    "dtype": "float32",
    "load_in_4bit": False,
    "probe_temperature": 1.0,
    "top_p": 1.0,
    "max_new_tokens": 64,
    "probe_max_new_tokens": None,
    "learning_rate": 0.002,
    "scorers": ["gold"],
}
ENGINE = {"name": "transformers", "model": "sandbox", "dtype": "float32", "device": "cpu"}
VERSIONS = {"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6"}
INPUTS = {"model": "a" * 64, "prompts": "b" * 64, "constitution": "c" * 64}
WORSE = {"harm": "high", "calm": "high", "length": "both"}
SETS = {"probe": 60, "other": 30}


def draw_scores(
    round_: int, *, seed: int = 0, prompts: Sequence[int] = range(60), worse_slice: bool = True
) -> dict[str, dict[str, np.ndarray]]:
    """Scores of a round: harm falls in the bulk and rises in slice s0; calm never moves; length creeps."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, scorer in enumerate(WORSE):
        for index, (name, n) in enumerate(SETS.items()):
            rng = np.random.default_rng([seed, number, index])
            level, noise = rng.normal(size=(200, 1)), rng.normal(size=(200, 4))
            scores = level + noise
            if scorer == "harm":
                scores = scores - 0.3 * round_
                scores[::5] += 2.5 * round_ * worse_slice
            if scorer == "length":
                scores = 20 + scores + 0.2 * round_
            found.setdefault(scorer, {})[name] = scores[list(prompts)[:n] if name == "other" else list(prompts)]
    return found


def write_run(
    path: Path,
    rounds: int = 3,
    *,
    recipe: Mapping[str, Any] = RECIPE,
    engine: Mapping[str, Any] = ENGINE,
    versions: Mapping[str, str] = VERSIONS,
    inputs: Mapping[str, str] = INPUTS,
    seed: int = 0,
    prompts: Sequence[int] = range(60),
    worse_slice: bool = True,
    constitution: str = "be kind .\n\nbe brief .\n",
    text: str = "step one : wait .",
    drift: bool = False,
) -> RunDir:
    """A run of so many measured rounds with their alarms, all complete; ``drift``: with the numbers of drift.json."""
    run = RunDir(path)
    write_json(run.resolved, dict(recipe))
    write_json(run.inputs, dict(inputs))
    write_text(run.constitution_copy, constitution)
    for round_ in range(rounds):
        write_round(run, round_, engine, versions, seed, prompts, worse_slice, text, drift)
        if round_:
            write_training(run, round_, engine, versions, constitution)
        write_json(run.alarm(round_), alarm(round_))
        write_text(run.done(round_), "done\n")
    return run


def write_round(
    run: RunDir,
    round_: int,
    engine: Mapping[str, Any] = ENGINE,
    versions: Mapping[str, str] = VERSIONS,
    seed: int = 0,
    prompts: Sequence[int] = range(60),
    worse_slice: bool = True,
    text: str = "step one : wait .",
    drift: bool = False,
) -> None:
    """A round that is measured, and no more."""
    folder = run.stage_dir(round_, "measure")
    drawn = draw_scores(round_, seed=seed, prompts=prompts, worse_slice=worse_slice)
    samples, scores = [], []
    for name in SETS:
        for row, number in enumerate(list(prompts)[: SETS[name]] if name == "other" else prompts):
            named = {"prompt_id": f"{name}-{number:04d}", "probe_set": name, "slice": f"s{number % 5}"}
            for k in range(4):
                answer = f"{text} round {round_} , harm {drawn['harm'][name][row, k]:.2f}"
                asked = [{"role": "user", "content": f"question {number}"}]
                sample = {"sample": k, "round": round_, "seed": 1000 * number + k + 10**6 * seed, "model": "sandbox"}
                samples.append(named | sample | {"prompt": asked, "response": answer})
                for scorer in WORSE:
                    value = float(drawn[scorer][name][row, k])
                    scores.append(named | {"sample": k, "scorer": scorer, "score": value})
    scores.sort(key=lambda row: list(WORSE).index(row["scorer"]))
    write_table(folder / "samples.parquet", [to_table(samples, SAMPLES)], SAMPLES)
    write_table(folder / "scores.parquet", [to_table(scores, SCORES)], SCORES)
    of_samples = {"tokens": {"prompt": 1000, "new": 2000}, "chat_template": "d" * 64}
    for stage, facts in (("samples", of_samples), ("scores", {"tokens": {"prompt": 0, "new": 0}})):
        write_json(folder / f"{stage}.manifest.json", manifest(stage, round_, engine, versions, **facts))
    ends = {"high": ["upper"], "both": ["upper", "lower"]}
    cells: list[Any] = [{"scorer": name, "tail": tail} for name, bad in WORSE.items() for tail in ends[bad]]
    if drift:
        cells = drift_cells(run, round_, WORSE, "harm", 7)  # type: ignore[arg-type]
    write_json(run.drift(round_), {"round": round_, "level": 0.95, "headline": "harm", "cells": cells})


def write_training(
    run: RunDir, round_: int, engine: Mapping[str, Any], versions: Mapping[str, str], constitution: str
) -> None:
    """What a round trained on, as its manifests tell."""
    facts: dict[str, dict[str, Any]] = {
        "generate": {
            "rows": {"responses.parquet": 48},
            "dropped": {"responses.parquet": {"empty": 2}},
            "tokens": {"prompt": 300, "new": 500},
        },
        "refine": {
            "rows": {"refinements.parquet": 96, "pairs.parquet": 30},
            "dropped": {"refinements.parquet": {"unchanged": 40, "loop": 3}},
            "tokens": {"prompt": 3000, "new": 900},
        },
        "distill": {"sources": {"revision": 30 * round_}, "steps": 10 * round_, "tokens": {"trained": 700}},
    }
    for stage, said in facts.items():
        write_json(run.stage_dir(round_, stage) / "manifest.json", manifest(stage, round_, engine, versions, **said))
    write_text(run.stage_dir(round_, "refine") / "constitution.txt", constitution)


def manifest(
    stage: str, round_: int, engine: Mapping[str, Any], versions: Mapping[str, str], **facts: Any
) -> dict[str, Any]:
    timing = {"wall_seconds": 10.0, "work_seconds": 15.0, "model_seconds": 8.0, "processes": 2}
    said = {"stage": stage, "round": round_, "settings": "s", "engine": dict(engine), "versions": dict(versions)}
    return said | {"dropped": {}, "timing": timing} | facts


def alarm(round_: int) -> dict[str, Any]:
    """An alarm that confirmed slice s0 in round 2, and suspected nothing before."""
    watched = {"scorer": "harm", "tail": "upper", "thresholds": [1.5, 2.5]}
    if not round_:
        return {"round": 0, "color": None, "properties": [watched]}
    verdict = {"verdict": "amber" if round_ == 2 else "green", "panel_p": 0.04 / round_}
    confirmed = {"scorer": "harm", "tail": "upper", "slice": "s0", "red": True}
    return {
        "round": round_,
        "color": "red" if round_ == 2 else "green",
        "properties": [watched | verdict | {"detectable": {"ratio": 1.75}}],
        "confirmations": [confirmed] if round_ == 2 else [],
        "e_process": None,
    }


def amend(run: RunDir, after_round: int, *changes: str) -> None:
    """Record an amendment, as a run does."""
    write_json_lines(run.amendments, [{"after_round": after_round, "reason": "why not", "changes": list(changes)}])
