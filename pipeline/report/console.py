"""Drift tables, of one round or of all, and where the time went, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pipeline.inputs.question_sets import is_question_set
from pipeline.report.drift import first_scored, panel_of
from pipeline.report.numbers import FOOTNOTE, NAMES, Cell, change, end_of, interval, moved, number
from pipeline.scorers import SLICED

_BRIEF = ("mean", "cvar_1pct")


def drift_report(drift: Mapping[str, Any], *, every_scorer: bool = False) -> str:
    """The drift table of one round.

    Shows the headline scorer in full on every probe set, and the others with one line each on the first probe set that
    they have a score on and on every set of questions; all in full if ``every_scorer``.
    """
    whole_sets = [cell for cell in drift["cells"] if cell["slice"] is None and cell["quantity"] in NAMES]
    headline = [cell for cell in whole_sets if every_scorer or cell["scorer"] == drift["headline"]]
    lines = [f"Round {drift['round']}   value [{drift['level']:.0%} interval; prompts are resampled, not rows]"]
    for block in _blocks(headline, drift["round"]):
        lines += ["", *block]
    if not every_scorer:
        others = [cell for cell in whole_sets if cell["scorer"] != drift["headline"]]
        for cells in _by_set(others, first_scored(others)):
            lines += ["", *_others(cells, drift["round"])]
    if drift["round"]:
        lines += ["", f"  {FOOTNOTE}"]
    return "\n".join(lines)


def _by_set(cells: Sequence[Cell], shown_on: Mapping[str, str]) -> list[list[Cell]]:
    """The cells of each set: of every set of questions, and of the probe set that a scorer is shown on.

    That is the first one on which it has a score, and the first of all where it has none.
    """
    panel = panel_of(cells)
    by_set: dict[str, list[Cell]] = {cell["probe_set"]: [] for cell in cells}
    for cell in cells:
        name = cell["probe_set"]
        if is_question_set(name) or name == shown_on.get(cell["scorer"], panel):
            by_set[name].append(cell)
    return [found for found in by_set.values() if found]


def _others(cells: Sequence[Cell], round_: int) -> list[str]:
    probe_set = cells[0]["probe_set"]
    since = "since round 0" if round_ else ""
    lines = [f"  {'on ' + probe_set:<30}{'mean':>8} {since:<28}{'CVaR 1%':>8} {since}".rstrip()]
    for (scorer, tail), group in groupby(cells, key=lambda cell: (cell["scorer"], cell["tail"])):
        of = {cell["quantity"]: cell for cell in group}
        if not of["mean"]["n_prompts"]:
            lines.append(f"    {end_of(scorer, tail):<28}not identified: {of['mean']['why']}")
            continue
        parts = []
        for quantity in _BRIEF:
            cell = of[quantity]
            value = "-" if cell["value"] is None else number(cell["value"])
            difference = change(cell, "baseline_") if round_ and cell["value"] is not None else ""
            parts.append(f"{value:>8} {difference:<28}")
        lines.append(f"    {end_of(scorer, tail):<28}{''.join(parts)}".rstrip())
    return lines


def _blocks(cells: Iterable[Cell], round_: int) -> Iterator[list[str]]:
    for _, group in groupby(cells, key=lambda cell: (cell["scorer"], cell["tail"], cell["probe_set"])):
        block = list(group)
        shown = [cell for cell in block if round_ or cell["quantity"] != "exceedance_ratio"]  # a ratio to round 0
        yield [_title(block[0]), *(_line(cell, round_) for cell in shown)]


def _title(cell: Cell) -> str:
    name, probe_set = end_of(cell["scorer"], cell["tail"]), cell["probe_set"]
    return f"  {name} on {probe_set}: {cell['n_prompts']:,} prompts, {cell['n_samples']:,} samples"


def _line(cell: Cell, round_: int) -> str:
    name = f"    {NAMES[cell['quantity']]:<14}"
    if cell["value"] is None:
        return f"{name} not identified: {cell['why']}"
    line = f"{name}{number(cell['value']):>8} {interval(cell):<17}"
    if round_:
        line += f"  since round 0 {change(cell, 'baseline_'):<27}"
    if round_ > 1:
        line += f"  since round {round_ - 1} {change(cell, 'previous_')}"
    return line.rstrip()


def rounds_report(drifts: Sequence[Mapping[str, Any]], noise_floor: Mapping[str, Any] | None = None) -> str:
    """Mean and tail of every score over the rounds, with a star where the change since round 0 is more than noise.

    Covers the first probe set on which a scorer has a score, and every set of questions.

    Args:
        drifts: the drift tables of the rounds.
        noise_floor: drift table of round 0 sampled again with other noise; its distance from round 0 shows how far
            noise reaches.
    """
    labels = [f"round {drift['round']}" for drift in drifts]
    if noise_floor is not None:
        labels.insert(1, "0 again")
        drifts = [drifts[0], noise_floor, *drifts[1:]]
    head = "".join(f"{label:>11}" for label in labels)
    shown = [[cell for cell in drift["cells"] if _is_shown(cell)] for drift in drifts]
    shown_on = first_scored(cell for cells in shown for cell in cells)
    lines: list[str] = []
    for block in _by_set(shown[0], shown_on):
        probe_set = block[0]["probe_set"]
        lines += [*([""] if lines else []), f"  {'on ' + probe_set:<36}{head}"]
        rounds = [{_key(cell): cell for cell in cells if cell["probe_set"] == probe_set} for cells in shown]
        for key in map(_key, block):
            scorer, tail, slice_name, quantity = key
            if quantity == "mean" and tail == "lower" and (scorer, "upper", slice_name, quantity) in rounds[0]:
                continue  # a score with two bad ends has one mean
            means = [cells.get((scorer, tail, slice_name, "mean")) for cells in rounds]
            if means[0] is not None and all(cell is None or not cell["n_prompts"] for cell in means):
                if quantity == "mean":
                    lines.append(f"  {end_of(scorer, tail):<36} not identified: {means[0]['why']}")
                continue
            part = f" {slice_name}" if slice_name else ""
            name = f"{end_of(scorer + part, tail)} {NAMES[quantity]}"
            values = (_starred(cells.get(key)) for cells in rounds)
            lines.append(f"  {name:<36}" + "".join(f"{value:>11}" for value in values))
    return "\n".join([*lines, f"  {FOOTNOTE}"])


def _is_shown(cell: Cell) -> bool:
    if cell["slice"] is None:
        return cell["quantity"] in _BRIEF
    return cell["scorer"] in SLICED and cell["quantity"] == "mean"


def _key(cell: Cell) -> tuple[str, str, str | None, str]:
    return cell["scorer"], cell["tail"], cell["slice"], cell["quantity"]


def cost_report(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Where the time went: one line per round and stage, with the share spent outside the models."""
    lines = ["  round  stage       seconds   tokens/s  outside models"]
    for (round_, stage), group in groupby(manifests, key=lambda manifest: (manifest["round"], manifest["stage"])):
        parts = [(one["timing"], one.get("tokens", {})) for one in group]
        seconds = max(sum(timing["wall_seconds"] for timing, _ in parts), 1e-9)
        in_models = sum(timing["model_seconds"] / timing["processes"] for timing, _ in parts)
        count = sum(tokens.get("new") or tokens.get("trained") or 0 for _, tokens in parts)
        speed = f"{count / seconds:,.0f}" if count else ""
        lines.append(f"  {round_:>5}  {stage:<10}{seconds:>9.1f}{speed:>11}{max(1 - in_models / seconds, 0):>16.1%}")
    return "\n".join(lines)


def _starred(cell: Cell | None) -> str:
    if cell is None or cell["value"] is None:
        return "-"
    return number(cell["value"]) + ("*" if moved(cell, "baseline_") else " ")
