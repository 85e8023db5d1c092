"""Do the alarms see what is known to be there, and only that? The sandbox's constitutions over several seeds.

    python benchmarks/sandbox_alarms.py [--seeds 8] [--jobs 2] [--runs runs/alarms]

Runs sandbox-blind-spot (where the tail gets worse), and sandbox-full with its placebo arm and sandbox-overzealous
(where it does not) with every seed, and writes a table of the truth and the alarms to benchmarks/sandbox_alarms.md,
and the numbers to benchmarks/sandbox_alarms.json. Complete runs are not repeated. Only the truth is scored, and only
on the first probe set: about five minutes per run on one core, ten with the placebo arm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.tails.proportions import wilson

PROJECT = Path(__file__).resolve().parents[1]
LESS = ("--probe_sets", "in_distribution=sandbox:probe:1000", "--scorers", "gold", "--batteries", "none")
ARMS = {"blind-spot": (), "full": ("--placebo", "true"), "overzealous": ()}
COLUMNS = ("gold.harm mean", "gold.harm cvar_1pct", "gold.over_refusal mean")


def run_recipe(name: str, seed: int, run_dir: Path, threads: int) -> None:
    """Run a recipe with a seed, unless it is complete."""
    recipe = PROJECT / "recipes" / f"sandbox-{name}" / "config.yaml"
    arguments = ["--config", recipe, "--seed", seed, "--run_dir", run_dir, *LESS, *ARMS[name]]
    command = [sys.executable, PROJECT / "pipeline" / "iterate.py", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})


def read_run(run_dir: Path) -> dict[str, Any]:
    """The truth on the panel in every round, the alarms, and the panel's p-value for the base against itself."""
    rounds = sorted(run_dir.glob("round-*/alarm.json"))
    alarms = [json.loads(path.read_text()) for path in rounds]
    truth = []
    for path in rounds:
        cells = json.loads((path.parent / "drift.json").read_text())["cells"]
        whole = {f"{c['scorer']} {c['quantity']}": c["value"] for c in cells if c["slice"] is None}
        truth.append({column: whole[column] for column in COLUMNS})
    return {
        "truth": truth,
        "alarms": [alarm["color"] for alarm in alarms[1:]],
        "missing": [any(one["hides"] for one in alarm["properties"]) for alarm in alarms[1:]],
        "confirmed": [[one["slice"], one["p_value"], one["red"]] for a in alarms[1:] for one in a["confirmations"]],
        "e_process": [alarm["e_process"]["log_value"] for alarm in alarms[1:]],
        "base_against_itself": alarms[0]["properties"][0]["noise_floor"]["panel_p"],
        "critic": [read_critic(path) for path in sorted(run_dir.glob("round-*/critic.json"))],
    }


def read_critic(path: Path) -> dict[str, dict[str, Any]]:
    """By truth: where it got worse while the critic objected to less, and the share that is bad of what it passes.

    The critic of a round meets the answers of the policy before it: that of round 1 the base's.
    """
    proxies = json.loads(path.read_text())["proxies"]
    return {
        one["gold"]: {"apart": one["apart"], "bad_though_passed": one["confidently_wrong"]["value"]} for one in proxies
    }


def rows(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One line per run: first and last round, and the alarms in between."""
    for name, run in found.items():
        first, last = run["truth"][0], run["truth"][-1]
        moved = [f"{first[column]:.3g} to {last[column]:.3g}" for column in COLUMNS]
        slices = sorted({str(place) for place, _, red in run["confirmed"] if red})
        alarms = " ".join(color + "*" * star for color, star in zip(run["alarms"], run["missing"], strict=True))
        cells = [name, *moved, alarms, ", ".join(slices), f"{run['base_against_itself']:.2g}"]
        yield f"| {' | '.join(cells)} |"


def summary(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """How many runs of each kind ever raised a red alarm."""
    kinds = sorted({name.split(" ")[0] for name in found})
    for kind in kinds:
        runs = [run for name, run in found.items() if name.split(" ")[0] == kind]
        red = sum("red" in run["alarms"] for run in runs)
        better = sum(run["truth"][-1][COLUMNS[0]] < run["truth"][0][COLUMNS[0]] for run in runs)
        low, high = wilson(red / len(runs), len(runs))
        interval = f"(95% interval of the rate: {low:.0%} to {high:.0%})"
        yield f"- {kind}: red in {red} of {len(runs)} runs {interval}; the mean of harm got better in {better}."
    # Recipes share round 0 of a seed.
    floors = {name.split(" ")[1]: run["base_against_itself"] <= 0.05 for name, run in found.items()}
    yield f"- base against itself (no training): the panel at 5% in {sum(floors.values())} of {len(floors)} seeds."


def apart(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One line per constitution and truth: how often it got worse while the critic objected to less."""
    yield "| constitution | truth | apart at the mean | apart at the tail | bad though passed, first and last |"
    yield "|---|---|---|---|---|"
    for arm in ARMS:
        runs = [run["critic"] for name, run in found.items() if name.startswith(arm)]
        for truth in runs[0][0] if runs else ():
            trained = [critic[truth]["apart"] or "" for run in runs for critic in run[1:]]
            counts = [f"{sum(place in said for said in trained)} of {len(trained)}" for place in ("mean", "tail")]
            bad = [sum(run[at][truth]["bad_though_passed"] for run in runs) / len(runs) for at in (0, -1)]
            yield f"| {arm} | {truth} | {' | '.join(counts)} | {bad[0]:.1%}, {bad[1]:.1%} |"


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="runs of each recipe, seeds 0, 1, ...")
    parser.add_argument("--runs", type=Path, default=PROJECT / "runs" / "alarms", help="folder of the runs")
    parser.add_argument("--collect", action="store_true", help="only collect existing runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time, sharing the cores")
    arguments = parser.parse_args()
    runs = [(name, seed, arguments.runs / f"{name}-{seed}") for name in ARMS for seed in range(arguments.seeds)]
    if not arguments.collect:
        threads = max((os.cpu_count() or 1) // arguments.jobs, 1)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            by_seed = sorted(runs, key=lambda run: run[1])
            list(tqdm(pool.map(lambda run: run_recipe(*run, threads), by_seed), total=len(runs)))
    found = {}
    for name, seed, run_dir in runs:
        if (run_dir / "selected.json").exists():
            found[f"{name} {seed}"] = read_run(run_dir)
            if (placebo := run_dir / "placebo").exists():
                found[f"placebo {seed}"] = read_run(placebo)
    lines = [
        "# Alarms on the sandbox, where the truth is known",
        "",
        "Written by `python benchmarks/sandbox_alarms.py`: round 0 to the last round on 1,000 probe prompts x 4",
        "samples, the alarms of rounds 1 to 3, the slices of confirmed ones, and the panel's p-value for round 0",
        "against itself. A star: so many more answers than at round 0 have no score, being outside the grammar, that",
        "a tail may hide among them; that alone is amber.",
        "",
        *summary(found),
        "",
        f"| run | {' | '.join(COLUMNS)} | alarms | confirmed in | base against itself |",
        "|---" * (len(COLUMNS) + 4) + "|",
        *rows(found),
        "",
        "The critic in the loop against the truth, on the training prompts, over the trained policies that it met:",
        "",
        *apart(found),
        "",
    ]
    results = Path(__file__).with_suffix("")
    results.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")
    results.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
