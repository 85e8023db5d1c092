"""What a run was made with and what it cost: constitutions and their changes, amendments, cost, provenance."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from pipeline.report.page.reading import Page, Run

Row = dict[str, Any]

_ALARM_FOLDERS = {"alarm", "again", "calibration"}


class Edition(NamedTuple):
    """A text of the constitution: the checkpoints that used it, and its unified diff to the edition before."""

    labels: list[str]
    text: str
    difference: list[str]


def editions(page: Page) -> list[Edition]:
    """The distinct constitutions of the page's checkpoints, in order of their first use."""
    used: dict[str, list[str]] = {}
    for shown in page.later:
        if shown.constitution is not None:
            used.setdefault(shown.constitution, []).append(shown.label)
    texts = list(used)
    return [
        Edition(labels, text, _difference(texts[i - 1], text, used[texts[i - 1]][-1], labels[0]) if i else [])
        for i, (text, labels) in enumerate(used.items())
    ]


def cost_rows(page: Page) -> list[Row]:
    """One row per round and stage: rows, tokens, wall-clock seconds, and seconds that models ran on all devices."""
    rows = []
    for shown in page.shown:
        named = sorted(((_stage(*one), one[1]) for one in shown.manifests), key=lambda one: one[0])
        for stage, group in groupby(named, key=lambda one: one[0]):
            manifests = [manifest for _, manifest in group]
            timings = [one["timing"] for one in manifests]
            tokens = [one.get("tokens", {}) for one in manifests]
            seconds = sum(timing["wall_seconds"] for timing in timings)
            new = sum(one.get("new", 0) + one.get("trained", 0) for one in tokens)
            rows.append(
                {"run": shown.run.label, "round": shown.round, "label": shown.label, "stage": stage}
                | {"rows": sum(sum(one["rows"].values()) for one in manifests)}
                | {"prompt_tokens": sum(one.get("prompt", 0) for one in tokens), "sampled_or_trained_tokens": new}
                | {"seconds": round(seconds, 3)}
                | {"model_seconds": round(sum(timing["model_seconds"] for timing in timings), 3)}
            )
    order = ["generate", "refine", "audit", "distill", "measure", "alarm"]
    return sorted(rows, key=lambda row: (row["run"], row["round"], order.index(row["stage"])))


def provenance_rows(run: Run) -> list[tuple[str, str]]:
    """What a run was made with, as (name, value) pairs."""
    return list(_provenance(run))


def differing_fields(page: Page) -> list[tuple[str, list[str]]]:
    """The fields of the recipe in which the page's runs differ, each with every run's value."""
    recipes = [run.recipe for run in page.runs.values()]
    names = sorted({name for recipe in recipes for name in recipe})
    values = {name: [str(recipe.get(name, "-")) for recipe in recipes] for name in names}
    return [(name, found) for name, found in values.items() if len(set(found)) > 1]


def _provenance(run: Run) -> Iterator[tuple[str, str]]:
    recipe = run.recipe
    for name in ("model_name_or_path", "model_revision", "constitution", "critic", "reviser", "seed", "num_rounds"):
        if recipe.get(name) is not None:
            yield name, str(recipe[name])
    engines = {
        " · ".join(str(value) for value in manifest["engine"].values())
        for _, manifest in run.first.manifests
        if "engine" in manifest
    }
    if engines:
        yield "engine at round 0", "; ".join(sorted(engines))
    for number, launch in enumerate(run.launches, 1):
        dirty = ", with uncommitted changes" if launch.get("git_dirty") else ""
        yield f"launch {number}", f"{launch['at']}, {launch['processes']} process(es), {launch['platform']}"
        yield f"launch {number}: code", f"{launch['git'] or 'no git'}{dirty}; Python {launch['python']}"
        packages = ", ".join(f"{name} {version}" for name, version in launch["packages"].items())
        yield f"launch {number}: packages", packages
    inputs = run.inputs
    for name, digest in inputs.items():
        yield f"input {name}", f"sha256 {digest}"


def _stage(folder: str, manifest: Any) -> str:
    return "alarm" if folder in _ALARM_FOLDERS else "measure" if folder == "measure" else str(manifest["stage"])


def _difference(before: str, after: str, label_before: str, label_after: str) -> list[str]:
    return list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), label_before, label_after, lineterm="", n=2)
    )
