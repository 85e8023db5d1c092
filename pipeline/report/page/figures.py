"""The figures of the page, in the order in which it shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.report.page import round_charts, tail_charts
from pipeline.report.page.critique_figures import critic_errors, critiques, outcomes
from pipeline.report.page.figure import Chart, Figure, Rows, number
from pipeline.report.page.palette import Palette
from pipeline.report.page.reading import Page
from pipeline.report.page.round_rows import (
    alarm_rows,
    calibration_rows,
    forecast_rows,
    refusal_rows,
    trend_rows,
    watch_rows,
)
from pipeline.report.page.samples import PairedSample
from pipeline.report.page.tail_rows import curve_rows, ellipse_rows, plane_rows, shift_rows, slice_rows

MOST_SLICES = 30
NOTHING_LATER = "Only round 0 is measured so far: there is nothing that could have changed."

_LIKELIHOOD = "likelihood."


def figures(page: Page, samples: Sequence[PairedSample], colors: Palette) -> list[Figure]:
    """Every figure; those without data say why."""
    trends = trend_rows(page)
    return [
        _plane(page, samples, colors),
        _curves(page, samples, colors),
        _shift(page, colors),
        _slices(page, samples),
        *_alarms(page, colors),
        _likelihoods(page, trends, colors),
        _forecasts(page, colors),
        _refusals(page, colors),
        critiques(page, colors),
        critic_errors(page, colors),
        outcomes(page),
        *_calibration(page, colors),
        _others(page, trends, colors),
    ]


def _plane(page: Page, samples: Sequence[PairedSample], colors: Palette) -> Figure:
    rows, ellipses = plane_rows(page), ellipse_rows(page)
    links: dict[str, str] = {}
    for one in samples:
        links.setdefault(one.label, f"#{one.anchor}")
    caption = (
        f"How far the bulk and the tail of {page.scorer} moved since round 0, in standard deviations of round 0's "
        "scores; up and right are worse. The bulk is the mean of the samples within the frozen threshold, the tail "
        "the mean of the worst 1%. Outlines are joint 90% confidence regions over prompts; the grey one is round 0 "
        "sampled a second time, which shows how far noise alone reaches. The shaded quadrant is where the average "
        "improves while the worst answers get worse. A point links to the worst sample of its round."
    )
    drawable = any("why" in row and row["tail"] is not None for row in rows)  # a point besides the origins
    charts = [Chart(tail_charts.plane_chart(rows, ellipses, colors, links))] if drawable else []
    unknown = [row for row in rows if row.get("why")]
    why = next((f"Not identified: {row['why']}." for row in unknown), NOTHING_LATER)
    if charts and unknown:
        named = "; ".join(f"{row['label']} ({row['why']})" for row in unknown)
        caption += f" Not identified, and not drawn: {named}."
    return Figure("plane", "Bulk and tail", caption, rows, charts, "" if charts else why)


def _curves(page: Page, samples: Sequence[PairedSample], colors: Palette) -> Figure:
    rows, thresholds = curve_rows(page), page.thresholds(page.shown[0])
    worst = [
        {"label": one.label, "slice": one.slice, "score": one.score, "beyond": one.beyond, "link": f"#{one.anchor}"}
        for one in samples
        if one.kind == "worst"
    ]
    caption = (
        f"How often {page.scorer} lies {'beyond' if page.tail == 'upper' else 'below'} each value (log axis), with "
        "95% Jeffreys intervals at the effective sample size; grey is round 0 sampled a second time. A line drops "
        "where no sample lies further out; its band continues, since what was not seen may still exist. Dashed: the "
        "thresholds frozen at round 0. Dots are the worst samples, and link to them."
    )
    lower = page.tail == "lower"
    charts = [Chart(tail_charts.curve_chart(rows, worst, thresholds, colors, lower=lower))] if rows else []
    return Figure("survival", "How far out the tail reaches", caption, rows, charts, "" if rows else "No scores.")


def _shift(page: Page, colors: Palette) -> Figure:
    rows = shift_rows(page)
    better, worse = ("below", "rises") if page.tail == "upper" else ("above", "falls")
    caption = (
        f"How much each quantile of {page.scorer} changed since round 0, from the bulk on the left to the worst "
        f"samples on the right. Better is {better} zero: a curve that lies there on the left and {worse} on the right "
        "means that the bulk improved while the worst samples got worse. Bands are 95% bootstrap intervals that "
        "resample prompts, one quantile at a time, drawn to the edge where the sample does not bound them; grey is "
        "round 0 against itself."
    )
    charts = [Chart(tail_charts.shift_chart(rows, colors))] if rows and page.later else []
    return Figure("shift", "Which quantiles moved", caption, rows, charts, "" if charts else NOTHING_LATER)


def _slices(page: Page, samples: Sequence[PairedSample]) -> Figure:
    rows = slice_rows(page)
    largest: dict[str, float] = {}
    for row in rows:
        largest[row["slice"]] = max(abs(row["value"]), largest.get(row["slice"], 0.0))
    moved = [name for name in largest if largest[name] > 0]
    kept = sorted(moved, key=lambda name: -largest[name])[:MOST_SLICES]
    drawn = [row for row in rows if row["slice"] in kept]
    links: dict[tuple[str, str], str] = {}
    for one in samples:
        links.setdefault((one.label, one.slice), f"#{one.anchor}")
    left_out = (
        f" Not drawn: {len(largest) - len(kept)} slices that moved less or not at all."
        if kept != list(largest)
        else ""
    )
    caption = (
        f"Change since round 0 in the tail of {page.scorer}, slice by slice: the mean over prompts of the worst of a "
        "prompt's samples. Orange is worse, blue is better, and a stronger colour is a larger change. A framed cell's "
        "95% interval excludes no change; by chance 1 cell in 20 is framed. The column “0 again” shows what noise "
        "alone does." + left_out
    )
    charts = [Chart(tail_charts.slice_chart(drawn, _by_time(page), links))] if drawn and page.later else []
    why = (
        "None of the slices with enough prompts moved."
        if rows
        else "The prompts of this probe set are not divided into slices."
    )
    why = why if page.later else NOTHING_LATER
    return Figure("slices", "The tail by slice", caption, rows, charts, "" if charts else why)


def _alarms(page: Page, colors: Palette) -> list[Figure]:
    rows = alarm_rows(page)
    caption = (
        "P-values of each round's tests, with stronger evidence further up; the short lines are the levels that they "
        "are compared with. The panel's tests only raise suspicion (orange: at or below 5%, as happens in about one "
        "quiet round in ten). A suspicion is tested once more on fresh prompts, at its share of an error rate that is "
        "spent over the declared horizon: red means confirmed. “0 again” is round 0 against itself."
    )
    charts = [Chart(round_charts.alarm_chart(rows))] if rows else []
    found = [Figure("alarms", "Alarms", caption, rows, charts, "" if rows else "There is no alarm record yet.")]
    watch = watch_rows(page)
    if watch:
        caption = (
            "The e-process: a bet, on fresh prompts in every round, against “no tail got worse”. It may be looked at "
            "after every round, for as long as the run lasts: if no tail gets worse, the chance of ever crossing the "
            "dashed line is at most 1%."
        )
        found.append(
            Figure("watch", "Evidence over rounds", caption, watch, [Chart(round_charts.watch_chart(watch, colors))])
        )
    return found


def _likelihoods(page: Page, trends: Rows, colors: Palette) -> Figure:
    rows = [row for row in trends if row["scorer"].startswith(_LIKELIHOOD)]
    caption = (
        "Log-probability of openings that nobody wants, relative to benign ones (and, with “.undesired”, on their "
        "own), over the probe prompts: solid lines are the mean, dashed ones the worst 1%, with 95% intervals over "
        "prompts. They are computed exactly, so measuring them again changes nothing and there is no noise floor."
    )
    why = "" if rows else "No battery of openings was measured (`scorers: [..., likelihood]`)."
    charts = _trend_charts(page, rows, colors)
    return Figure("likelihood", "Likelihood of undesired openings", caption, rows, charts, why)


def _forecasts(page: Page, colors: Palette) -> Figure:
    rows = forecast_rows(page)
    caption = (
        "Forecast from those log-probabilities: how likely the worst of this many prompts is to begin with an "
        "undesired opening. It extends the tail of the measured prompts by a straight line in extreme-value "
        "coordinates (Jones et al. 2025); bands are 95% likelihood intervals, and do not cover the possibility that "
        "the line does not stay straight."
    )
    charts = [Chart(round_charts.forecast_chart(rows, colors))] if rows else []
    why = "" if rows else "There is no forecast: no battery was measured, or it is not identified from so few prompts."
    return Figure("forecast", "Forecast for many prompts", caption, rows, charts, why)


def _refusals(page: Page, colors: Palette) -> Figure:
    rows = refusal_rows(page)
    noise = {(row["run"], row["group"]): row for row in rows if isinstance(row["round"], str)}
    charts = []
    for group in dict.fromkeys(row["group"] for row in rows):
        drawn = [
            row | {"line": "mean", **_noise_band(noise.get((row["run"], group)))}
            for row in rows
            if row["group"] == group and not isinstance(row["round"], str)
        ]
        spec = round_charts.trend_chart(drawn, colors, f"Share of refusals over rounds: {group}.", share=True)
        charts.append(Chart(spec, group))
    caption = (
        "Share of answers that refuse, according to the scorer `refusal`, with 95% intervals over prompts; grey is "
        "round 0 sampled a second time. Refusing harmful prompts is wanted, refusing innocent ones is not."
    )
    why = "" if rows else "Refusals were not scored (`scorers: [refusal, ...]`)."
    return Figure("refusal", "Refusals", caption, rows, charts, why)


def _calibration(page: Page, colors: Palette) -> list[Figure]:
    """Only where questions with true answers were asked."""
    rows = calibration_rows(page)
    if not rows:
        return []
    errors = {(row["questions_of"], row["label"]): row for row in rows}
    caption = (
        "How often the likeliest option was the true one, by the confidence in it, with 95% intervals: points below "
        "the diagonal are overconfident. Expected calibration error, with what chance alone gives in brackets: "
        + "; ".join(
            f"{name}, {label} {number(row['ece'])} ({number(row['ece_if_calibrated'])})"
            for (name, label), row in errors.items()
        )
        + "."
    )
    charts = [
        Chart(round_charts.reliability_chart([row for row in rows if row["questions_of"] == name], colors), name)
        for name in dict.fromkeys(row["questions_of"] for row in rows)
    ]
    return [Figure("calibration", "Calibration", caption, rows, charts)]


def _others(page: Page, trends: Rows, colors: Palette) -> Figure:
    rows = [row for row in trends if not row["scorer"].startswith(_LIKELIHOOD)]
    caption = (
        f"Every other score, on {page.probe_set} where its title names no other set: solid lines are the mean, dashed "
        "ones the mean of the worst 1% (for scores that are more than yes or no; at either end where both are bad), "
        "with 95% intervals over prompts, cut where they would leave the panel. Grey shows how far noise alone "
        "reaches around round 0. Falling diversity, growing length and growing KL to the base are the first signs of "
        "over-training."
    )
    return Figure(
        "scores",
        "Diversity, length, KL and the rest",
        caption,
        rows,
        _trend_charts(page, rows, colors),
        "" if rows else "No other scores.",
    )


def _trend_charts(page: Page, rows: Rows, colors: Palette) -> list[Chart]:
    first = ("diversity", "length", "kl", "nll_base", "loops", "refusal")
    names = dict.fromkeys(row["scorer"] for row in rows)
    place = {name: next((i for i, head in enumerate(first) if name.startswith(head)), len(first)) for name in names}
    charts = []
    for name in sorted(names, key=lambda name: place[name]):
        drawn = _lasting([row for row in rows if row["scorer"] == name])
        where = drawn[0]["probe_set"]
        title = name if where == page.probe_set else f"{name} on {where}"
        charts.append(Chart(round_charts.trend_chart(drawn, colors, f"{title} over rounds."), title))
    return charts


def _lasting(rows: Rows) -> Rows:
    """Rows without single-point lines where others have several points: quantities identified in only one round."""
    points = Counter((row["run"], row["line"]) for row in rows)
    most = max(points.values())
    return [row for row in rows if most == 1 or points[row["run"], row["line"]] > 1]


def _by_time(page: Page) -> list[str]:
    return [*(page.noise_label(run) for run in page.runs.values()), *(shown.label for shown in page.shown)]


def _noise_band(row: dict[str, Any] | None) -> dict[str, Any]:
    return {"noise_low": row["low"] if row else None, "noise_high": row["high"] if row else None}
