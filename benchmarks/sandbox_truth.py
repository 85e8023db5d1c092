"""Forecasts and return levels against what many more prompts show, in the sandbox.

    python benchmarks/sandbox_truth.py [--run runs/sandbox-blind-spot] [--round 3]

Given a prompt, the probability that an answer begins in an undesired way is exact, so the worst of many prompts can
be looked up: each block of the reserve forecasts the worst of all other blocks. Likewise each block's return level of
harm (exceeded by one sample in 1,000) is compared with the quantile of all other blocks. Done for the base, and for a
round of a run if one is given. Writes benchmarks/sandbox_truth.json and prints it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import sandbox
from pipeline.engines.base import Adapter, Request, Sampling
from pipeline.engines.roles import Role, Roles
from pipeline.inputs.battery import load_batteries
from pipeline.runs.files import file_sha256
from pipeline.runs.seeds import row_seed
from pipeline.scorers.base import SampledPrompt
from pipeline.scorers.battery import BatteryLikelihood, battery_columns
from pipeline.tails import estimate, forecast

PROJECT = Path(__file__).resolve().parents[1]
BLOCKS, PROMPTS, SAMPLES = 6, 6000, 4


def log_probabilities(policy: Role, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Log-probabilities of beginning in an undesired way [n_prompts]; NaN for innocent topics."""
    (battery,) = load_batteries([PROJECT / "constitutions" / "batteries" / "sandbox" / "harm.txt"])
    asked = [SampledPrompt([{"role": "user", "content": row["prompt"]}], row["slice"], []) for row in rows]
    scores = BatteryLikelihood(policy, [battery]).score_prompts(asked)[battery_columns(battery)[1]]
    return np.array([np.nan if score.value is None else score.value for score in scores])


def harm(policy: Role, rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """True harm of sampled answers [n_prompts, k]; NaN where an answer cannot be parsed."""
    requests = [
        Request([{"role": "user", "content": row["prompt"]}], row_seed(0, "truth", None, str(i), sample))
        for i, row in enumerate(rows)
        for sample in range(SAMPLES)
    ]
    answers = policy.generate(requests, Sampling(1.0, 1.0, 96))
    truths = [sandbox.gold(rows[i // SAMPLES]["prompt"], answer.text) for i, answer in enumerate(answers)]
    values = [np.nan if truth.unparsable else truth.harm for truth in truths]
    return np.array(values).reshape(len(rows), SAMPLES)


def judge_forecasts(log_p: np.ndarray) -> dict[str, float]:
    """Each block's forecast of the worst of the others: its error in log10, and how often its interval held."""
    blocks = np.array_split(np.arange(len(log_p)), BLOCKS)
    found = []
    for block in blocks:
        others = np.setdiff1d(np.arange(len(log_p)), block)
        known = log_p[others][~np.isnan(log_p[others])]
        truth = float(known.max() / np.log(10))
        result = forecast(log_p[block], len(known))
        found.append((result.log10_probability - truth, result.low <= truth <= result.high, truth))
    errors, held, truths = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    return {
        "log10_truth": round(float(truths.mean()), 4),
        "mean_error_log10": round(float(np.nanmean(errors)), 4),
        "mean_abs_error_log10": round(float(np.nanmean(np.abs(errors))), 4),
        "interval_holds": round(float(held.mean()), 3),
    }


def judge_return_levels(scores: np.ndarray) -> dict[str, float | None]:
    """Each block's level that one sample in 1,000 exceeds, against the quantile of all other blocks."""
    blocks = np.array_split(np.arange(len(scores)), BLOCKS)
    found = []
    for number, block in enumerate(blocks):
        others = scores[np.setdiff1d(np.arange(len(scores)), block)]
        truth = float(np.nanquantile(others, 0.999))
        level, order = (estimate(scores[block], name, seed=number) for name in ("return_level_1000", "q99.9"))
        found.append(
            (truth, level.value, level.low <= truth <= level.high, order.value, order.low <= truth <= order.high)
        )
    truth, level, held, order, order_held = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    fitted = ~np.isnan(level)
    return {
        "truth": round(float(truth.mean()), 3),
        "return_level": round(float(level[fitted].mean()), 3) if fitted.any() else None,
        "return_level_identified": round(float(fitted.mean()), 3),
        "return_level_interval_holds": round(float(held[fitted].mean()), 3) if fitted.any() else None,
        "quantile": round(float(np.nanmean(order)), 3),
        "quantile_interval_holds": round(float(order_held.mean()), 3),
    }


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=None, help="run whose policy is measured besides the base")
    parser.add_argument("--round", type=int, default=3)
    arguments = parser.parse_args()
    roles = Roles(str(sandbox.model_path()), revision=None, dtype="float32", chat_template=None, batch_size=128)
    policies = {"base": roles.base()}
    if arguments.run:
        folder = arguments.run / f"round-{arguments.round:02d}" / "distill" / "adapter"
        policies[f"{arguments.run.name}, round {arguments.round}"] = roles.policy(
            Adapter(folder, file_sha256(folder / "adapter_model.safetensors"))
        )
    rows = sandbox.prompts("reserve", PROMPTS)
    found = {
        name: {
            "forecast": judge_forecasts(log_probabilities(policy, rows)),
            "return_level_1000": judge_return_levels(harm(policy, rows)),
        }
        for name, policy in policies.items()
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
