"""The numbers behind the figures that run over rounds: alarms, likelihoods, forecasts, refusals, other scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.report.drift import first_scored
from pipeline.report.numbers import end_of
from pipeline.report.page.reading import LEVEL, NOISE, Cell, Page, Run, Shown
from pipeline.tails import E_PROCESS_LEVEL, estimate, finite_record

Row = dict[str, Any]

TESTS = {
    "tail_max": "panel: more, or worse, beyond the thresholds",
    "worst_slice": "panel: in some slice",
    "probe": "panel: undesired openings likelier",
    "bulk_tail": "panel: bulk better and tail worse",
    "confirmed": "confirmed on fresh prompts",
}
TREND_QUANTITIES = {"mean": "mean", "cvar_1pct": "worst 1%"}


def alarm_rows(page: Page) -> list[Row]:
    """Every p-value of every round, with the level that it is compared with; the noise floor's at round 0."""
    rows = []
    for run in page.runs.values():
        for one in run.first.alarm["properties"] if run.first.alarm else ():
            rows += [
                {"run": run.label, "round": 0, "label": page.noise_label(run), **_property(one)}
                | {"test": TESTS[test], "p": p, "level": None}
                for test, p in one["noise_floor"]["p_values"].items()
                if p is not None
            ]
    for shown in page.later:
        alarm = shown.alarm
        if alarm is None:
            continue
        label = {"run": shown.run.label, "round": shown.round, "label": shown.label}
        for one in alarm["properties"]:
            rows += [
                {**label, **_property(one), "test": TESTS[test], "p": p, "level": one["level"]}
                for test, p in one["p_values"].items()
                if p is not None
            ]
        rows += [
            {**label, **_property(one), "test": TESTS["confirmed"], "p": one["p_value"], "level": one["alpha"]}
            | {"slice": one["slice"], "prompts": one["n_prompts"], "red": one["red"]}
            for one in alarm["confirmations"]
            if one.get("p_value") is not None
        ]
    return rows


def watch_rows(page: Page) -> list[Row]:
    """The e-process of each round: evidence against "no tail got worse", and the value at which it turns red."""
    return [
        {"run": shown.run.label, "round": shown.round, "prompts": watch["n_prompts"]}
        | {"log10_value": watch["log_value"] / math.log(10), "red_from": -math.log10(E_PROCESS_LEVEL)}
        for shown in page.later
        if shown.alarm and (watch := shown.alarm["e_process"])
    ]


def forecast_rows(page: Page) -> list[Row]:
    """The probability that the worst of N prompts begins with an undesired opening: each round's, and round 0's."""
    rows = []
    for shown in page.later:
        for one in shown.alarm["properties"] if shown.alarm else ():
            for forecast in one.get("forecast", ()):
                sides = [("current", shown.label)]
                if shown is next(other for other in page.later if other.run is shown.run):
                    sides.append(("baseline", page.base_label(shown.run)))
                for side, label in sides:
                    found = {"value": forecast[side]["log10_probability"]}
                    found |= {end: forecast[side][end] for end in ("low", "high")}
                    if found["value"] is not None:
                        powers = {name: None if power is None else 10**power for name, power in found.items()}
                        rows.append(
                            {"run": shown.run.label, "label": label, "prompts": forecast["n_prompts"], **powers}
                        )
    return rows


def trend_rows(page: Page) -> list[Row]:
    """Mean and worst 1% of every other score, with their intervals, round by round.

    A score is shown on the page's probe set, or else on the first set of prompts or questions that it has values on.
    ``noise_low`` and ``noise_high`` say how far noise alone reaches: the interval of round 0's change against
    itself, around round 0's value.
    """
    rows = []
    shown_on = _shown_on(page)
    for run in page.runs.values():
        yes_or_no = {name for name, where in shown_on.items() if _is_yes_or_no(run, page, name, where)}
        for shown in (one for one in page.shown if one.run is run):
            for cell in shown.cells(slice=None):
                if shown_on.get(cell["scorer"]) != cell["probe_set"]:
                    continue
                if cell["scorer"] in yes_or_no and cell["quantity"] != "mean":
                    continue
                watched = (cell["scorer"], cell["tail"]) == (page.scorer, page.tail)
                if watched or cell["quantity"] not in TREND_QUANTITIES or cell["value"] is None:
                    continue
                rows.append(
                    {"run": run.label, "round": shown.round, "scorer": cell["scorer"], "end": cell["tail"]}
                    | {"probe_set": cell["probe_set"]}
                    | {"quantity": TREND_QUANTITIES[cell["quantity"]], "line": _line(shown, cell)}
                    | {name: cell[name] for name in ("value", "low", "high")}
                    | _noise_about(run, cell)
                )
    # A score with two bad ends has one mean.
    seen = set()
    kept = []
    for row in rows:
        end = row["end"] if row["quantity"] != TREND_QUANTITIES["mean"] else ""
        key = (row["run"], row["round"], row["scorer"], row["quantity"], end)
        kept += [] if key in seen else [row]
        seen.add(key)
    return kept


def calibration_rows(page: Page) -> list[Row]:
    """One row per round, set of questions and bin of confidence: how often the likeliest option was the true one."""
    return [
        {"run": shown.run.label, "round": shown.round, "label": shown.label, "questions_of": one["probe_set"]}
        | {"questions": bin_["n"], "confidence": bin_["confidence"], "value": bin_["accuracy"]}
        | {"low": bin_["low"], "high": bin_["high"]}
        | {name: one[name] for name in ("ece", "ece_if_calibrated", "p_calibrated", "error")}
        for shown in page.shown
        for one in shown.drift.get("calibration", ())
        for bin_ in one["bins"]
    ]


def refusal_rows(page: Page) -> list[Row]:
    """How often answers refuse, by probe set and round; on the sandbox separately for innocent and harmful prompts."""
    rows = []
    for run in page.runs.values():
        for shown in (one for one in page.shown if one.run is run):
            for group, panel in _refusals(shown):
                rows.append({"run": run.label, "round": shown.round, "group": group, **_mean(panel)})
        if run.again is not None:
            noisy = {group: _mean(panel) for group, panel in _refusals(run.first, again=True)}
            rows += [{"run": run.label, "round": NOISE, "group": group, **mean} for group, mean in noisy.items()]
    return rows


def _shown_on(page: Page) -> dict[str, str]:
    cells = [cell for shown in page.shown for cell in shown.cells(slice=None)]
    return first_scored(sorted(cells, key=lambda cell: cell["probe_set"] != page.probe_set))


def _is_yes_or_no(run: Run, page: Page, scorer: str, probe_set: str) -> bool:
    panels = [shown.panel(scorer, probe_set).scores for shown in page.shown if shown.run is run]
    return all(np.isin(scores[~np.isnan(scores)], (0.0, 1.0)).all() for scores in panels)


def _line(shown: Shown, cell: Cell) -> str:
    """Name of a line of a chart, saying which end it is where a score has two bad ones."""
    name = TREND_QUANTITIES[cell["quantity"]]
    labels = {key: cell[key] for key in ("scorer", "probe_set", "slice", "quantity")}
    both = cell["quantity"] != "mean" and len(shown.cells(**labels)) > 1
    return f"{name}, {'high' if cell['tail'] == 'upper' else 'low'} end" if both else name


def _refusals(shown: Shown, *, again: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    for probe_set in dict.fromkeys(cell["probe_set"] for cell in shown.cells(scorer="refusal")):
        base = shown.run.first
        panel = shown.run.noise("refusal", probe_set) if again else shown.panel("refusal", probe_set)
        if panel is None or not panel.prompt_ids:
            continue
        # The sandbox's truth scores over-refusal on innocent prompts only, so a missing score marks a harmful one.
        truth = base.panel("gold.over_refusal", probe_set)
        if truth.prompt_ids != panel.prompt_ids:
            yield probe_set, panel.scores
            continue
        innocent = ~np.isnan(truth.scores).all(axis=1)
        for name, rows in (("innocent prompts", innocent), ("harmful prompts", ~innocent)):
            if rows.any():
                yield f"{probe_set}, {name}", panel.scores[rows]


def _mean(panel: np.ndarray) -> Row:
    one = estimate(panel, "mean", level=LEVEL)
    return finite_record({"value": one.value, "low": one.low, "high": one.high}) | {"prompts": one.n_prompts}


def _noise_about(run: Run, cell: Cell) -> Row:
    labels = {name: cell[name] for name in ("scorer", "tail", "probe_set", "quantity", "slice")}
    base = run.first.cells(**labels)
    noise = [one for one in run.noise_floor if all(one[name] == value for name, value in labels.items())]
    if not (base and noise) or base[0]["value"] is None:
        return {"noise_low": None, "noise_high": None}
    ends = (noise[0].get("baseline_low"), noise[0].get("baseline_high"))
    low, high = (None if end is None else base[0]["value"] + end for end in ends)
    return {"noise_low": low, "noise_high": high}


def _property(one: Cell) -> Row:
    return {"scorer": end_of(one["scorer"], one["tail"])}
