"""What the statistics cost: the full estimate table and all alarms, by panel size; with scipy for comparison.

    python benchmarks/tails_speed.py [--skip-million]

Each size runs in a process of its own, on one core, and reports its peak memory, wall-clock seconds (which include
whatever else ran on the machine) and CPU seconds, from which the growth is fitted. Writes tails_speed.json next to
this script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from pipeline.tails import compare
from pipeline.tails.plans import Settings
from pipeline.tails.quantities import measure_both

SIZES = ((2000, 4, 5), (5000, 16, 10), (1_000_000, 4, 1))
BUDGETS = {SIZES[0]: 3.0, SIZES[1]: 30.0, SIZES[2]: 60.0}
LINEAR = ((10_000, 4, 1), (30_000, 4, 1), (100_000, 4, 1), (300_000, 4, 1))
RESAMPLES = 1000


def panel(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, ...]:
    """Return calibration, baseline and current scores, with 1% of prompts turned bad."""
    effects = rng.normal(size=(n, 1))
    sides = [np.sqrt(0.7) * effects + np.sqrt(0.3) * rng.normal(size=(n, k)) for _ in range(2)]
    sides[1][: n // 100] += 3.0
    return np.sqrt(0.7) * rng.normal(size=(n, 1)) + np.sqrt(0.3) * rng.normal(size=(n, k)), *sides


def seconds_of(n: int, k: int, scorers: int) -> dict[str, Any]:
    """Time the table and the alarms for this many scorers."""
    rng, total, processor = np.random.default_rng(0), 0.0, 0.0
    for scorer in range(scorers):
        calibration, baseline, current = panel(rng, n, k)
        probe = rng.normal(size=(2, n))
        started, processor_started = time.perf_counter(), time.process_time()
        compare(
            baseline,
            current,
            calibration=calibration,
            slices=np.arange(n) % 10,
            probe=(probe[0], probe[1]),
            seed=scorer,
        )
        total += time.perf_counter() - started
        processor += time.process_time() - processor_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "prompts": n,
        "k": k,
        "scorers": scorers,
        "seconds": round(total, 2),
        "cpu_seconds": round(processor, 2),
        "peak_gib": round(peak, 2),
    }


def cvar(scores: np.ndarray) -> float:
    """Return the mean of the worst 1%."""
    level = np.quantile(scores, 0.99)
    return level + np.maximum(scores - level, 0).mean() / 0.01


def against_scipy(n: int, k: int) -> dict[str, Any]:
    """Time the same intervals both ways: seven quantities at baseline, now, and their change, resampling prompts.

    scipy has neither order-statistic nor studentised intervals over prompts, so its percentile intervals stand in
    for them; ours are what `compare` prints.
    """
    _, baseline, current = panel(np.random.default_rng(1), n, k)
    quantities = {
        "mean": np.mean,
        **{f"q{q}": lambda scores, q=q: np.quantile(scores, q / 100) for q in (50, 90, 99, 99.8)},
        "cvar_1pct": cvar,
        "worst_of_k": lambda scores: scores.max(axis=1).mean(),
    }
    settings = Settings(None, "upper", None, 0.95, RESAMPLES, 0)
    started = time.perf_counter()
    (ours,) = measure_both(baseline, current, [(tuple(quantities), None)], settings)
    our_seconds = time.perf_counter() - started
    rows, their_seconds = [], 0.0
    for (quantity, statistic), estimates in zip(quantities.items(), ours, strict=True):
        for name, estimate in zip(("baseline", "current", "change"), estimates, strict=True):
            started = time.perf_counter()
            theirs = stats.bootstrap(
                (np.arange(n),),
                {
                    "baseline": lambda at, of=statistic: of(baseline[at]),
                    "current": lambda at, of=statistic: of(current[at]),
                    "change": lambda at, of=statistic: of(current[at]) - of(baseline[at]),
                }[name],
                vectorized=False,
                method="percentile",
                n_resamples=RESAMPLES,
                rng=np.random.default_rng(2),
            ).confidence_interval
            their_seconds += time.perf_counter() - started
            ends = {"ours": [estimate.low, estimate.high], "scipy": [float(theirs.low), float(theirs.high)]}
            rows.append(
                {"quantity": quantity, "of": name} | {side: np.round(e, 4).tolist() for side, e in ends.items()}
            )
    return {
        "prompts": n,
        "k": k,
        "seconds": round(our_seconds, 3),
        "scipy_seconds": round(their_seconds, 1),
        "times_faster": round(their_seconds / our_seconds, 1),
        "intervals": rows,
    }


def in_own_process(size: tuple[int, int, int]) -> dict[str, Any]:
    """Run one size in a fresh process, so that its peak memory is its own."""
    output = subprocess.run(
        [sys.executable, __file__, "--size", *map(str, size)],
        check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    return json.loads(output)


def main() -> None:
    """Measure everything, record, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-million", action="store_true", help="leave out the largest panel")
    parser.add_argument("--size", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(seconds_of(*arguments.size)))
        return
    sizes = SIZES[:2] if arguments.skip_million else SIZES
    measured = [in_own_process(size) | {"budget_seconds": BUDGETS[size]} for size in sizes]
    line = [in_own_process(size) for size in LINEAR]
    slope, _ = np.polyfit(np.log([row["prompts"] for row in line]), np.log([row["cpu_seconds"] for row in line]), 1)
    result = {
        "machine": f"{platform.machine()}, one core",
        "sizes": measured,
        "growth": line,
        "exponent": round(float(slope), 3),
        "against_scipy": against_scipy(5000, 16),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
