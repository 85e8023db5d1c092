"""The numbers behind the figures of the tail: plane, survival curves, shift function, slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.report.page.reading import LEVEL, Page, Run
from pipeline.report.panels import Panel
from pipeline.tails import BulkTail, Estimate, bulk_tail_point, change, estimate, finite_record, summarise

Row = dict[str, Any]

CURVE_POINTS = 100
SHARES = (
    *(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05),
    *(0.04, 0.03, 0.02, 0.015, 0.01, 0.008, 0.006, 0.005, 0.004, 0.003, 0.002, 0.001),
)
ELLIPSE_LEVEL = 0.90

_UNMOVED = Estimate(0.0, 0.0, 0.0, 0, 0)


def plane_rows(page: Page) -> list[Row]:
    """One row per checkpoint: where it lies in the bulk-tail plane, in standard deviations of round 0's scores.

    Round 0 is the origin, in runs that measured the page's score. The noise floor is round 0 sampled a second time,
    against itself. ``why`` says why a checkpoint has no tail, and so no point.
    """
    rows = []
    for run in page.runs.values():
        if run.first.panel(page.scorer, page.probe_set).prompt_ids:
            rows.append({"run": run.label, "round": 0, "label": page.base_label(run), "bulk": 0.0, "tail": 0.0})
        for label, round_, point in _points(page, run):
            found = finite_record({"bulk": point.bulk, "tail": point.tail, "p_bulk_better": point.p_bulk_better})
            rows.append({"run": run.label, "round": round_, "label": label, **found, "why": point.why})
    return rows


def ellipse_rows(page: Page) -> list[Row]:
    """The outlines of the points' joint regions, at ``ELLIPSE_LEVEL``; one row per corner, in order."""
    return [
        {"run": run.label, "label": label, "corner": corner, "bulk": float(bulk), "tail": float(tail)}
        for run in page.runs.values()
        for label, _, point in _points(page, run)
        if point.identified
        for corner, (bulk, tail) in enumerate(point.ellipse(level=ELLIPSE_LEVEL, points=49))
    ]


def curve_rows(page: Page) -> list[Row]:
    """How often scores lie beyond x, with a Jeffreys interval at the effective sample size; a row per curve and x."""
    panels = list(_panels(page))
    if not panels:
        return []
    return [
        {"run": run.label, "label": label, "x": x, **_ends(one), "samples_beyond": one.samples_beyond}
        for run, label, panel in panels
        for x in _grid([panel.scores for _, _, panel in panels], page)
        for one in [estimate(panel.scores, "exceedance", threshold=x, tail=page.tail, level=LEVEL)]
        if one.identified
    ]


def shift_rows(page: Page, seed: int = 0) -> list[Row]:
    """How far each quantile moved since round 0, with a bootstrap interval over prompts.

    ``share`` is the share of samples that are worse than the quantile: 0.5 is the median, 0.01 the worst 1%.
    """
    names = {f"q{100 * (1 - share):g}": share for share in SHARES}
    rows = []
    for run, label, before, after in _pairs(page):
        for row in summarise(before, after, quantities=list(names), tail=page.tail, level=LEVEL, seed=seed):
            moved = row.change_from_baseline
            if moved is not None and moved.identified:
                rows.append({"run": run.label, "label": label, "share": names[row.quantity], **_ends(moved)})
    return rows


def slice_rows(page: Page, seed: int = 0) -> list[Row]:
    """Change since round 0 of the mean over prompts of the worst of their samples, by slice; the noise floor too.

    ``clear`` says whether the interval excludes no change. Empty where prompts are not divided into slices.
    """
    slices = {name for run in page.runs.values() for name in run.first.panel(page.scorer, page.probe_set).slices}
    rows = []
    for name in sorted(slices):
        for run, label, before, after in _pairs(page):
            here = np.array(run.first.panel(page.scorer, page.probe_set).slices) == name
            if not here.any():
                continue
            scores = np.concatenate([before[here].ravel(), after[here].ravel()])
            scores = scores[~np.isnan(scores)]
            if len(scores) and (scores == scores[0]).all():
                moved = _UNMOVED  # as the bootstrap would find out more slowly
            else:
                moved = change(before[here], after[here], "worst_of_k", tail=page.tail, level=LEVEL, seed=seed)
            if moved.identified:
                rows.append(
                    {"run": run.label, "label": label, "slice": name, "prompts": int(here.sum()), **_ends(moved)}
                    | {"clear": bool(moved.low > 0 or moved.high < 0)}
                )
    return rows if len(slices) > 1 else []


def _points(page: Page, run: Run) -> Iterator[tuple[str, int, BulkTail]]:
    """The run's points: the noise floor's first, as round 0, then those of its checkpoints."""
    thresholds = page.thresholds(run.first)
    frozen = thresholds[0] if thresholds else None
    base = run.first.panel(page.scorer, page.probe_set).scores
    again = run.noise(page.scorer, page.probe_set)
    if again is not None:
        yield page.noise_label(run), 0, bulk_tail_point(base, again.scores, frozen, tail=page.tail)
    for one in page.later:
        pair = one.change(page.scorer, page.probe_set) if one.run is run else None
        if pair is not None:
            yield one.label, one.round, bulk_tail_point(*pair, frozen, tail=page.tail)


def _panels(page: Page) -> Iterator[tuple[Run, str, Panel]]:
    for run in page.runs.values():
        again = run.noise(page.scorer, page.probe_set)
        if again is not None:
            yield run, page.noise_label(run), again
    for one in page.shown:
        panel = one.panel(page.scorer, page.probe_set)
        if panel.prompt_ids:
            yield one.run, one.label, panel


def _pairs(page: Page) -> Iterator[tuple[Run, str, np.ndarray, np.ndarray]]:
    """Scores at round 0 and later, on the same prompts: the noise floor's first."""
    for run in page.runs.values():
        again = run.noise(page.scorer, page.probe_set)
        if again is not None:
            yield run, page.noise_label(run), run.first.panel(page.scorer, page.probe_set).scores, again.scores
    for one in page.later:
        pair = one.change(page.scorer, page.probe_set)
        if pair is not None:
            yield one.run, one.label, *pair


def _grid(panels: Sequence[np.ndarray], page: Page) -> list[float]:
    """Where curves are evaluated: at observed scores, mostly in the tail, and at the thresholds."""
    pooled = np.concatenate([panel[~np.isnan(panel)] for panel in panels])
    values = np.sort(pooled) if page.tail == "upper" else -np.sort(-pooled)
    distinct = values[np.diff(values, prepend=np.nan) != 0]
    if len(distinct) > CURVE_POINTS:
        # Evenly spaced in the log of how many lie beyond, which is the axis of the figure.
        beyond = np.unique(np.geomspace(1, len(values), CURVE_POINTS).astype(int))
        distinct = np.unique(values[len(values) - beyond])
    thresholds = [one for shown in page.shown[:1] for one in page.thresholds(shown)]
    return np.unique(np.concatenate([distinct, thresholds])).tolist()


def _ends(one: Estimate) -> Row:
    return finite_record({"value": one.value, "low": one.low, "high": one.high})
