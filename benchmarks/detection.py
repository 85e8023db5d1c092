"""Size and power of the tail tests, next to tests that people would use instead.

    python benchmarks/detection.py [--part tests|two-stage|rounds|coverage|forecast] [--seconds 600] [--quick]

Populations are simulated, so the truth is known. Work is done in chunks with seeds of their own: the command resumes
where it stopped, `--seconds` limits one invocation, and nothing depends on how often it was stopped. Counts go to
detection.json, the human-readable table to detection.md, both next to this script. `--quick` runs a subset of about
two minutes and writes nothing.

The generator: scores are prompt effect + sample noise (ICC 0.7, standard normal). In the current round the effects are
correlated 0.8 with the old ones (churn), and a monotone map lowers everything below p90 by 0.4, fading out at p98: the
bulk got better, the tail did not move. N0 churn only, N1 with the better bulk, N2+ also ICC 0.9 (mode collapse), N2-
ICC 0.5. On top of N1: C1/C03 1% / 0.3% of prompts, all in one slice of ten, answer from a bad mode half of the time;
D1/D03 the same extra mass spread over all prompts; ST excess over p99 stretched by 1.6; EM 1% of prompts bad in 0.4%
of samples. Probe: churn sd 1.1 nats, bulk -0.5, affected prompts +4 (EM +3; D1 +1 and D03 +0.5 on all), coverage 60%.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from pipeline.tails import (
    EProcess,
    change,
    compare,
    confirm,
    estimate,
    forecast,
    frozen_threshold,
    hypothesis,
    log_e_value,
    probe_shift,
    simes,
    tail_max,
    tail_thresholds,
    worst_slice,
)

NULLS = ("N0", "N1", "N2+", "N2-")
DRIFTS = ("C1", "C03", "D1", "D03", "ST", "EM")
SHARE = {"C1": 0.01, "C03": 0.003, "D1": 0.01, "D03": 0.003, "EM": 0.01}
PROBE_SHIFT = {"C1": 4.0, "C03": 4.0, "EM": 3.0, "D1": 1.0, "D03": 0.5}
COVERAGE = 0.6
CHUNK = 50
FLIPS = 999
RESULTS = Path(__file__).with_suffix(".json")


class Draw(NamedTuple):
    """Two rounds of one panel, and calibration prompts at round 0."""

    calibration: np.ndarray
    baseline: np.ndarray
    current: np.ndarray
    slices: np.ndarray
    probe: tuple[np.ndarray, np.ndarray]


class Population(NamedTuple):
    """How scores arise; each population differs from the first in one way."""

    effects: Callable[[np.random.Generator, tuple[int, int]], np.ndarray] = lambda rng, shape: rng.normal(size=shape)
    bad_mode: float = 4.0  # in the units of a normal score
    grades: int | None = None  # a judge with this many grades
    ragged: bool = (
        False  # a fifth of samples missing, 1 to k samples a prompt, slices of 2% to 40% and unlike hardness
    )


POPULATIONS = {
    "normal": Population(),
    "heavy tails": Population(effects=lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3)),
    "ten grades": Population(grades=10),
    "mild harm": Population(bad_mode=2.6),
    "ragged": Population(ragged=True),
}
RAGGED_SIZES = np.array([0.40, 0.20, 0.12, 0.08, 0.05, 0.05, 0.04, 0.02, 0.02, 0.02])
RAGGED_HARDNESS = np.linspace(-0.4, 0.4, 10)


def scores(rng: np.random.Generator, population: Population, effects: np.ndarray, k: int, icc: float) -> np.ndarray:
    """Return samples [n_prompts, k] around prompt effects [n_prompts, 1]."""
    noise = population.effects(rng, (len(effects), k))
    return np.sqrt(icc) * effects + np.sqrt(1 - icc) * noise


@cache
def quantiles(name: str) -> dict[float, float]:
    """Return quantiles of round 0, by the probability that a standard normal lies below the key."""
    rng, population = np.random.default_rng(1), POPULATIONS[name]
    sample = scores(rng, population, population.effects(rng, (2_000_000, 1)), 1, 0.7)
    keys = (*stats.norm.ppf([0.90, 0.98, 0.99]), 2.6, 4.0)
    return dict(zip(keys, np.quantile(sample, stats.norm.cdf(keys)), strict=True))


@cache
def laws(name: str, scenario: str) -> tuple[np.ndarray, np.ndarray]:
    """Return quantiles under another ICC, and of round 0, at the same levels."""
    rng, population = np.random.default_rng(2), POPULATIONS[name]
    samples = [
        scores(rng, population, population.effects(rng, (1_000_000, 1)), 1, icc).ravel()
        for icc in ({"N2+": 0.9, "N2-": 0.5}[scenario], 0.7)
    ]
    levels = np.concatenate([np.arange(1, 990) / 1000, 1 - np.geomspace(0.01, 1e-6, 200)])
    return np.quantile(samples[0], levels), np.quantile(samples[1], levels)


def draw(rng: np.random.Generator, name: str, scenario: str, n: int, k: int, n_calibration: int | None = None) -> Draw:
    """Draw one panel with calibration prompts, as many as on the panel unless ``n_calibration`` is given."""
    population, (p90, p98, p99) = POPULATIONS[name], [quantiles(name)[x] for x in stats.norm.ppf([0.90, 0.98, 0.99])]
    slices = rng.choice(10, size=n, p=RAGGED_SIZES) if population.ragged else np.arange(n) % 10
    effects = population.effects(rng, (n, 1))
    if name == "heavy tails":
        # Sums of heavy-tailed effects have another law: replace a fifth of them instead.
        churned = np.where(rng.random((n, 1)) < 0.2, population.effects(rng, (n, 1)), effects)
    else:
        churned = 0.8 * effects + 0.6 * population.effects(rng, (n, 1))
    baseline = scores(rng, population, effects, k, 0.7)
    current = scores(rng, population, churned, k, {"N2+": 0.9, "N2-": 0.5}.get(scenario, 0.7))
    if name == "heavy tails" and scenario in ("N2+", "N2-"):
        # Only normal effects keep their marginal law when the ICC changes: map it back.
        current = np.interp(current, *laws(name, scenario))
    if scenario != "N0":
        current = current - 0.4 * np.clip((p98 - current) / (p98 - p90), 0, 1)
    current, affected = _drift(rng, scenario, current, slices, name, p99)
    calibration = scores(rng, population, population.effects(rng, (n_calibration or n, 1)), k, 0.7)
    shift = rng.normal(0, 1.1, size=n) - (0.5 if scenario != "N0" else 0.0)
    shift += PROBE_SHIFT.get(scenario, 0.0) * (affected & (rng.random(n) < COVERAGE))
    before = rng.normal(-12, 3, size=n)
    sides = [calibration, baseline, current]
    if population.ragged:
        sides = [
            side
            + RAGGED_HARDNESS[slices if side is not calibration else rng.choice(10, size=len(side), p=RAGGED_SIZES)][
                :, None
            ]
            for side in sides
        ]
        for side in sides:
            side[rng.random(side.shape) < 0.2] = np.nan
            side[np.arange(k) >= rng.integers(1, k + 1, size=len(side))[:, None]] = np.nan
    if population.grades:
        sides = [np.clip(np.floor((side + 2) * 1.6), 0, population.grades - 1) for side in sides]
    return Draw(sides[0], sides[1], sides[2], slices, (before, before + shift))


def _drift(
    rng: np.random.Generator, scenario: str, current: np.ndarray, slices: np.ndarray, name: str, p99: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores with the planted drift, and which prompts a probe could see it in."""
    n = len(current)
    everyone = np.ones(n, dtype=bool)
    if scenario == "ST":
        return np.where(current > p99, p99 + 1.6 * (current - p99), current), ~everyone
    if scenario not in SHARE:
        return current, ~everyone
    affected, rate = everyone, SHARE[scenario] / 2
    if scenario in ("C1", "C03"):
        # The slice in the middle of the sizes; its share of prompts decides how many of them turn bad.
        affected, rate = (slices == 4) & (rng.random(n) < SHARE[scenario] / (slices == 4).mean()), 0.5
    elif scenario == "EM":
        affected, rate = rng.random(n) < 0.01, 0.004
    bad_mode = POPULATIONS[name].bad_mode
    centre = quantiles(name)[bad_mode]
    bad = affected[:, None] & (rng.random(current.shape) < rate)
    return np.where(bad, rng.normal(centre, 0.5 * centre / bad_mode, size=current.shape), current), affected


def p_values(panel: Draw, seed: int) -> dict[str, float]:
    """Return the p-value of every test; NaN where not identified."""
    thresholds = tail_thresholds(panel.calibration)
    both = panel.baseline, panel.current
    ours = {
        "tail_max": tail_max(*both, thresholds, flips=FLIPS, seed=seed).p_value,
        "worst_slice": worst_slice(*both, panel.slices, thresholds, flips=FLIPS, seed=seed).p_value,
        "probe": probe_shift(*panel.probe, flips=FLIPS, seed=seed).p_value,
    }
    known = [p for p in ours.values() if not np.isnan(p)]
    return ours | {"panel": simes(known) if known else float("nan")} | naive(panel, seed)


def naive(panel: Draw, seed: int) -> dict[str, float]:
    """Return p-values of what people would use instead."""
    before, after = panel.baseline, panel.current
    paired = ~(np.isnan(before).all(axis=1) | np.isnan(after).all(axis=1))
    means = np.nanmean(after[paired], axis=1) - np.nanmean(before[paired], axis=1)
    flat = [side[~np.isnan(side)] for side in (before, after)]
    u99 = frozen_threshold(panel.calibration)
    events, sizes = [int((side > u99).sum()) for side in flat], [len(side) for side in flat]
    pooled = sum(events) / sum(sizes)
    error = np.sqrt(pooled * (1 - pooled) * sum(1 / size for size in sizes))
    p99 = change(before, after, "q99", level=0.9, replicates=99, seed=seed)
    return {
        "mean, paired t": float(stats.ttest_1samp(means, 0, alternative="greater").pvalue),
        "KS two-sided (iid)": float(stats.ks_2samp(*flat, method="asymp").pvalue),
        "exceedance z (iid)": float(stats.norm.sf((events[1] / sizes[1] - events[0] / sizes[0]) / error)),
        # An interval, so only a decision at 5%.
        "p99 difference, bootstrap": 0.0 if p99.low > 0 else 1.0,
    }


def fresh_prompts_iid(rng: np.random.Generator, n: int, k: int) -> dict[str, float]:
    """Return p-values of iid tests when each round uses new prompts and nothing changed: controls that must fail."""
    panels = [scores(rng, POPULATIONS["normal"], rng.normal(size=(n, 1)), k, 0.7) for _ in range(2)]
    flat = [panel.ravel() for panel in panels]
    return {
        "Welch t (iid)": float(stats.ttest_ind(flat[1], flat[0], equal_var=False, alternative="greater").pvalue),
        "exceedance z (iid)": naive(Draw(panels[0], *panels, np.zeros(n, int), (flat[0], flat[0])), 0)[
            "exceedance z (iid)"
        ],
    }


def tests_chunk(cell: tuple, seed: int) -> Counter:
    """Count rejections at 5% and 1%."""
    name, scenario, n, k = cell
    rng, counts = np.random.default_rng(_key(seed, *cell)), Counter()
    for repetition in range(CHUNK):
        if scenario == "fresh":
            found = fresh_prompts_iid(rng, n, k)
        else:
            found = p_values(draw(rng, name, scenario, n, k), seed * CHUNK + repetition)
        for test, p in found.items():
            counts[f"{test} .05"] += bool(p <= 0.05)
            counts[f"{test} .01"] += bool(p <= 0.01)
    return counts


def one_round(rng: np.random.Generator, panel: Draw, name: str, scenario: str, seed: int) -> tuple[bool, bool]:
    """Screen a panel; return whether a confirmation was started, and whether it turned red at .004."""
    n, k = panel.baseline.shape
    found = compare(
        panel.baseline, panel.current, calibration=panel.calibration, slices=panel.slices, probe=panel.probe,
        seed=seed, replicates=1,
    )  # fmt: skip
    claim = hypothesis(found)
    if claim is None:
        return False, False
    fresh = draw(rng, name, scenario, 10_000 if claim.slice_id is not None else 2 * n, k, 10)
    rows = fresh.slices == claim.slice_id if claim.slice_id is not None else slice(None)
    return True, confirm(fresh.baseline[rows], fresh.current[rows], claim, 0.004, flips=9999, seed=seed).red


def two_stage_chunk(cell: tuple, seed: int) -> Counter:
    """Count confirmations started, and reds, of single rounds."""
    name, scenario, n, k = cell
    rng, counts = np.random.default_rng(_key(seed, *cell)), Counter()
    for repetition in range(CHUNK):
        went_on, red = one_round(rng, draw(rng, name, scenario, n, k), name, scenario, seed * CHUNK + repetition)
        counts["went on"] += went_on
        counts["red"] += red
    return counts


def rounds_chunk(cell: tuple, seed: int) -> Counter:
    """Count runs of ten rounds with any red, and with an alarm of the e-process on 1,000 fresh prompts per round."""
    name, scenario, n, k = cell
    rng, counts = np.random.default_rng(_key(seed, *cell)), Counter()
    for _ in range(CHUNK // 10):
        any_red, process = False, EProcess()
        threshold = frozen_threshold(draw(rng, name, "N0", n, k).calibration, 0.998)
        for round_ in range(10):
            panel = draw(rng, name, scenario, n, k)
            any_red |= one_round(rng, panel, name, scenario, round_)[1]
            fresh = draw(rng, name, scenario, 1000, k, 10)
            process = process.update(log_e_value(fresh.baseline, fresh.current, threshold))
        counts["any red"] += any_red
        counts["e-process at .01"] += process.alarm(0.01)
    return counts


def coverage_chunk(cell: tuple, seed: int) -> Counter:
    """Count 95% intervals that contain the truth, for normal and lognormal scores."""
    name, _, n, k = cell
    rng, counts = np.random.default_rng(_key(seed, *cell)), Counter()
    law = stats.norm if name == "normal" else stats.lognorm(1.0)
    tail = np.linspace(0.99, 1, 200_001)[:-1] + 0.01 / 400_000
    truth = {
        "q99": law.ppf(0.99), "q99.9": law.ppf(0.999), "cvar_1pct": law.ppf(tail).mean(),
        "return_level_1000": law.ppf(0.999), "exceedance": 0.01, "worst_of_k": None, "mean": law.mean(),
    }  # fmt: skip
    truth.pop("worst_of_k")
    for repetition in range(CHUNK):
        panel = scores(rng, POPULATIONS["normal"], rng.normal(size=(n, 1)), k, 0.7)
        panel = panel if name == "normal" else np.exp(panel)
        for quantity, value in truth.items():
            found = estimate(panel, quantity, threshold=law.ppf(0.99), replicates=499, seed=seed * CHUNK + repetition)
            counts[quantity] += bool(found.low <= value <= found.high)
            counts[f"{quantity} identified"] += found.identified
    return counts


def forecast_chunk(cell: tuple, seed: int) -> Counter:
    """Count forecasts from m queries whose interval contains the truth, and add up errors in log10."""
    name, _, m, n = cell
    rng, counts = np.random.default_rng(_key(seed, *cell)), Counter()
    for _ in range(CHUNK):
        psi = rng.normal(-2.8, 0.35, size=m)
        rate = 0.0
        if name == "hidden mode":
            rate = 0.0002
            psi = np.where(rng.random(m) < rate, -np.log(np.log(2)), psi)
        # The typical worst of n: the level that one query in n exceeds.
        truth = -np.log(np.log(2)) if n * rate > 1 else stats.norm.isf(1 / n, -2.8, 0.35)
        truth = -np.exp(-truth) / np.log(10)
        found = forecast(-np.exp(-psi), n)
        if found.identified:
            counts["identified"] += 1
            counts["interval holds the truth"] += bool(found.low <= truth <= found.high)
            counts["abs log10 error, likelihood"] += abs(found.log10_probability - truth)
            counts["abs log10 error, least squares"] += abs(found.least_squares - truth)
    return counts


class Part(NamedTuple):
    """One table: its cells, how many repetitions each needs, and the function that counts them."""

    cells: list[tuple]
    repetitions: int
    chunk: Callable[[tuple, int], Counter]
    per_chunk: int = CHUNK


SMALL, LARGE = ((200, 4), (1000, 1), (1000, 4), (1000, 16)), ((5000, 1), (5000, 4))
PARTS = {
    "tests": Part(
        [("normal", scenario, 1000, 4) for scenario in NULLS + DRIFTS]
        + [("normal", "fresh", 1000, 16)]
        + [(name, scenario, 1000, 4) for name in list(POPULATIONS)[1:] for scenario in ("N0", "N1", "N2-", "C1", "D1")]
        + [
            ("normal", scenario, n, k)
            for n, k in (LARGE[1], *SMALL[:2], SMALL[3], LARGE[0])
            for scenario in NULLS + DRIFTS
        ],
        400,
        tests_chunk,
    ),
    "two-stage": Part(
        [("normal", s, 2000, 4) for s in (*NULLS, "C1", "C03", "D1", "D03", "ST", "EM")], 200, two_stage_chunk
    ),
    "rounds": Part([("normal", s, 1000, 4) for s in ("N1", "N2-", "N0", "N2+")], 100, rounds_chunk, CHUNK // 10),
    "coverage": Part(
        [(name, "", n, k) for name in ("normal", "lognormal") for n, k in ((1000, 4), (5000, 4))], 400, coverage_chunk
    ),
    "forecast": Part(
        [(name, "", 1000, n) for name in ("smooth", "hidden mode") for n in (10_000, 100_000)], 400, forecast_chunk
    ),
}


def _key(seed: int, *cell: object) -> list[int]:
    return [seed, *(part if isinstance(part, int) else int.from_bytes(str(part).encode()) % 2**31 for part in cell)]


def work(part: str, results: dict, until: float) -> Iterator[tuple]:
    """Do the missing chunks of a part, cell by cell, until time is up; yield each cell that was worked on."""
    spec = PARTS[part]
    for cell in spec.cells:
        label = " ".join(str(value) for value in (part, *cell))
        done = results.setdefault(label, {"cell": [part, *cell], "repetitions": 0, "seconds": 0.0, "counts": {}})
        while done["repetitions"] < spec.repetitions and time.monotonic() < until:
            started = time.monotonic()
            counts = Counter(done["counts"])
            counts.update(spec.chunk(cell, done["repetitions"] // spec.per_chunk))
            done["counts"] = dict(counts)
            done["repetitions"] += spec.per_chunk
            done["seconds"] = round(done["seconds"] + time.monotonic() - started, 1)
            yield cell


def table(results: dict) -> str:
    """Return all results as Markdown, in percent with the Monte-Carlo standard error of the worst entry."""
    lines = [
        "# Size and power of the tail tests",
        "",
        "Written by `python benchmarks/detection.py`, which says what the cells mean. Shares are in percent of the",
        "repetitions; behind each cell its largest Monte-Carlo standard error. Tests at nominal 5% unless it says so.",
    ]
    for part in PARTS:
        mine = [done for done in results.values() if done["cell"][0] == part and done["repetitions"]]
        if not mine:
            continue
        names = list(dict.fromkeys(name for done in mine for name in done["counts"] if not name.endswith(" .01")))
        lines += ["", f"## {part}", "", "| cell | repetitions | " + " | ".join(n.removesuffix(" .05") for n in names)
                  + " | s.e. |", "|---" * (len(names) + 3) + "|"]  # fmt: skip
        for done in mine:
            size = done["repetitions"]
            cells, error = [], 0.0
            for name in names:
                count = done["counts"].get(name, 0 if name.removesuffix(" .05") + " .01" in done["counts"] else None)
                if count is None:
                    cells.append("")
                elif "error" in name:
                    cells.append(f"{count / max(done['counts'].get('identified', 0), 1):.2f}")
                else:
                    share = count / size
                    error = max(error, float(np.sqrt(share * (1 - share) / size)))
                    cells.append(f"{100 * share:.1f}")
            label = " ".join(str(value) for value in done["cell"][1:] if value != "")
            lines.append(f"| {label} | {size} | " + " | ".join(cells) + f" | {100 * error:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do as much as time allows, record it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one table only")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after this long; resume next time")
    parser.add_argument("--repetitions", type=int, help="repetitions per cell, instead of the part's own number")
    parser.add_argument("--quick", action="store_true", help="two minutes, nothing written")
    arguments = parser.parse_args()
    until = time.monotonic() + (120 if arguments.quick else arguments.seconds)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() and not arguments.quick else {}
    for part in [arguments.part] if arguments.part else PARTS:
        if arguments.repetitions or arguments.quick:
            PARTS[part] = PARTS[part]._replace(repetitions=arguments.repetitions or CHUNK)
        for cell in work(part, results, until):
            print(part, *cell, flush=True)
            if not arguments.quick:
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if not arguments.quick:
        RESULTS.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
