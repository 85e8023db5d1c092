"""Where the demo's time goes: runs a sandbox recipe from scratch and adds up its manifests.

    python benchmarks/demo_time.py [--config recipes/sandbox-blind-spot/config.yaml] [--out benchmarks/demo_time.json]
    python benchmarks/demo_time.py --of runs/sandbox-blind-spot      # an existing run; only prints

Writes the recorded result, seconds and tokens per second of every stage, next to this script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
STAGES = ("generate", "refine", "audit", "distill", "measure", "score", "alarm")


def run_recipe(config: Path, run_dir: Path) -> float:
    """Run a recipe; return the wall-clock seconds of the whole command, imports included."""
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(PROJECT / "accelerate_configs" / "cpu.yaml")]
    command = [sys.executable, *launch, str(PROJECT / "pipeline" / "iterate.py")]
    started = time.monotonic()
    subprocess.run([*command, "--config", str(config), "--run_dir", str(run_dir)], cwd=PROJECT, check=True)
    return time.monotonic() - started


def add_up(run_dir: Path) -> dict[str, dict[str, float]]:
    """Seconds, tokens and the share outside the models, by stage over all rounds."""
    manifests: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
    for path in run_dir.glob("round-*/**/*manifest.json"):
        manifest = json.loads(path.read_text())
        of_alarm = path.relative_to(run_dir).parts[1] in ("calibration", "again", "alarm")
        manifests["alarm" if of_alarm else manifest["stage"]].append(manifest)
    table = {}
    for stage, of_stage in manifests.items():
        seconds = sum(m["timing"]["wall_seconds"] for m in of_stage)
        model = sum(m["timing"]["model_seconds"] / m["timing"]["processes"] for m in of_stage)
        tokens = sum(m.get("tokens", {}).get("new", 0) + m.get("tokens", {}).get("trained", 0) for m in of_stage)
        table[stage] = {
            "seconds": round(seconds, 1),
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds) if tokens else 0,
            "outside_models": round(1 - model / seconds, 3),
        }
    return table


def by_round(run_dir: Path) -> list[dict[str, Any]]:
    """Seconds of every round, those in its models, and the shares of the round spent outside them, by kind.

    ``stages``: tables, manifests and templates of sampling and rewriting; ``training``: what the trainer sets up and
    saves; ``scoring``: scorers that need no model; ``between``: intervals, tests, tables and the page.
    """
    rows = []
    began = (run_dir / "recipe.resolved.json").stat().st_mtime
    for done in sorted(run_dir.glob("round-*/DONE")):
        outside = dict.fromkeys(("stages", "training", "scoring"), 0.0)
        model = in_stages = 0.0
        for path in done.parent.glob("**/*manifest.json"):
            manifest = json.loads(path.read_text())
            timing = manifest["timing"]
            in_model = timing["model_seconds"] / timing["processes"]
            model, in_stages = model + in_model, in_stages + timing["wall_seconds"]
            kind = {"distill": "training", "score": "scoring"}.get(manifest["stage"], "stages")
            outside[kind] += timing["wall_seconds"] - in_model
        ended = done.stat().st_mtime
        seconds = ended - began
        outside["between"] = seconds - in_stages
        shares = {name: round(value / seconds, 3) for name, value in outside.items()}
        rows.append({"seconds": round(seconds, 1), "in_models": round(model, 1), "shares_outside": shares})
        began = ended
    return rows


def main() -> None:
    """Run, add up, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=PROJECT / "recipes" / "sandbox-blind-spot" / "config.yaml")
    parser.add_argument("--of", type=Path, metavar="RUN", help="only add up the rounds of this finished run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if arguments.of:
        print(json.dumps(by_round(arguments.of), indent=2))
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_recipe(arguments.config, Path(folder) / "run")
        stages, rounds = add_up(Path(folder) / "run"), by_round(Path(folder) / "run")
    in_stages = sum(stage["seconds"] for stage in stages.values())
    result = {
        "recipe": str(arguments.config.resolve().relative_to(PROJECT)),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(seconds, 1),
        "seconds_outside_stages": round(seconds - in_stages, 1),
        "stages": stages,
        "rounds": rounds,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
