"""The charts that run over rounds: alarms, likelihoods, forecasts, refusals, other scores, critiques."""

from __future__ import annotations

from typing import Any

from pipeline.report.page.figure import Rows
from pipeline.report.page.palette import GREY, Palette
from pipeline.report.page.theme import INK, NOT_HIDDEN, Data, color, label_heights, run_color

SMALL = 170
_DASHES = ([1, 0], [5, 4], [2, 3])
FOUND = {"no sign": "#2A7FBF", "suspicious": "#E69F00", "confirmed": "#D55E00"}


def alarm_chart(rows: Rows) -> dict[str, Any]:
    """P-values by checkpoint on a log axis, and the levels that they are compared with."""
    import altair as alt

    data = Data()
    drawn = [row | {"found": _found(row), "p": max(row["p"], 1e-6)} for row in rows]
    # A domain rather than sort=[...], which would paste the names into an expression.
    columns = alt.Scale(domain=list(dict.fromkeys(row["label"] for row in rows)))
    x = alt.X("label:O", scale=columns, title=None, axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(type="log", reverse=True, domain=[min(row["p"] for row in drawn) / 3, 1])
    y = alt.Y("p:Q", title="p-value: stronger →", scale=scale, axis=alt.Axis(format=".0e", tickCount=6))
    offset = alt.XOffset("test:N", sort=None)
    chart = data.chart(drawn)
    details = [alt.Tooltip(f"{name}:N") for name in ("test", "scorer", "slice")]
    details += [alt.Tooltip("p:Q", format=".2g"), alt.Tooltip("level:Q", title="compared with", format=".2g")]
    legend = alt.Legend(orient="bottom", direction="vertical", title=None, labelLimit=320, symbolStrokeColor=INK)
    layers = [
        chart.mark_tick(thickness=2, color=INK, opacity=0.6, orient="horizontal", size=16).encode(
            x=x, xOffset=offset, y=alt.Y("level:Q", scale=scale)
        ),
        chart.mark_point(filled=True, size=90, opacity=1).encode(
            x=x,
            xOffset=offset,
            y=y,
            shape=alt.Shape("test:N", sort=None, legend=legend),
            color=alt.Color("found:N", scale=alt.Scale(domain=list(FOUND), range=list(FOUND.values())), legend=None),
            tooltip=details,
        ),
    ]
    return data.finish(layers, "P-values of every test by checkpoint.", height=280)


def watch_chart(rows: Rows, colors: Palette) -> dict[str, Any]:
    """The e-process over rounds, in powers of ten, and where it turns red."""
    import altair as alt

    data = Data()
    lines = data.chart(rows)
    x, y = _rounds(rows), alt.Y("log10_value:Q", title="evidence, power of ten")
    details = [alt.Tooltip(name) for name in ("run:N", "round:Q", "log10_value:Q", "prompts:Q")]
    limit = data.chart([{"at": max(row["red_from"] for row in rows), "text": "red from here"}])
    layers = [
        limit.mark_rule(color=FOUND["confirmed"], strokeDash=[4, 3]).encode(y=alt.Y("at:Q")),
        limit.mark_text(align="left", x=4, dy=-6, color=FOUND["confirmed"]).encode(
            y=alt.Y("at:Q"), text=alt.Text("text:N")
        ),
        lines.mark_line(strokeWidth=2, point={"filled": True, "size": 50}).encode(
            x=x, y=y, color=run_color(colors), tooltip=details
        ),
    ]
    return data.finish(layers, "The e-process over rounds.", height=SMALL)


def forecast_chart(rows: Rows, colors: Palette) -> dict[str, Any]:
    """The probability that the worst of N prompts begins with an undesired opening, with its band, by checkpoint."""
    import altair as alt

    data = Data()
    lines = data.chart(rows).transform_filter(NOT_HIDDEN)
    x = alt.X(
        "prompts:Q",
        title="number of prompts",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~s", tickCount=4),
    )
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("value:Q", title="P(worst begins undesired)", scale=scale, axis=alt.Axis(format="~p"))
    details = [alt.Tooltip("label:N"), alt.Tooltip("prompts:Q"), alt.Tooltip("interval:N", title="probability")]
    last = list({row["label"]: row for row in rows}.values())
    heights = label_heights([(0, row["value"]) for row in last], 1, 0.08)
    named = [row | {"height": height} for row, height in zip(last, heights, strict=True)]
    layers = [
        lines.mark_area(opacity=0.16).encode(
            x=x, y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high"), color=color(colors)
        ),
        lines.mark_line(point={"filled": True, "size": 45}).encode(x=x, y=y, color=color(colors), tooltip=details),
        data.chart(named)
        .transform_filter(NOT_HIDDEN)
        .mark_text(align="right", dx=-8, dy=-9, fontWeight=600)
        .encode(x=x, y=alt.Y("height:Q"), text=alt.Text("label:N"), color=color(colors)),
    ]
    return data.finish(layers, "Forecast of the worst of N prompts, by checkpoint.", height=240)


def trend_chart(rows: Rows, colors: Palette, description: str, *, share: bool = False) -> dict[str, Any]:
    """One score over rounds: solid the mean, dashed the worst 1%; grey how far noise alone reaches.

    Args:
        rows: rows with run, round, line, value, low, high, noise_low and noise_high.
        colors: colours of the runs.
        description: text for readers who cannot see the chart.
        share: whether the score is a share of answers.
    """
    import altair as alt

    data = Data()
    low, high = (0.0, 1.0) if share else _reach(rows)
    scale = alt.Scale(domain=[low, high], nice=False)
    axis = alt.Axis(format="~p", tickCount=4) if share else alt.Axis(tickCount=4)
    lines = list(dict.fromkeys(row["line"] for row in rows))
    x, y = _rounds(rows), alt.Y("value:Q", title=None, scale=scale, axis=axis)
    chart = data.chart(rows)
    dashes = alt.StrokeDash("line:N", scale=alt.Scale(domain=lines, range=_DASHES[: len(lines)]), legend=None)
    details = [alt.Tooltip("round:Q"), alt.Tooltip("line:N", title="what"), alt.Tooltip("interval:N", title="value")]
    last = [row for row in rows if row["round"] == max(one["round"] for one in rows) and row["run"] == rows[0]["run"]]
    heights = label_heights([(0, row["value"]) for row in last], 1, 0.1 * (high - low))
    named = [row | {"height": height} for row, height in zip(last, heights, strict=True)]
    layers = [
        chart.mark_area(opacity=0.25, color=GREY, clip=True).encode(
            x=x, y=alt.Y("noise_low:Q", scale=scale, title=None), y2=alt.Y2("noise_high"), detail=["run:N", "line:N"]
        ),
        chart.mark_rule(strokeWidth=1.5, opacity=0.75, clip=True).encode(
            x=x, y=alt.Y("low:Q", scale=scale, title=None), y2=alt.Y2("high"), color=run_color(colors)
        ),
        chart.mark_line(strokeWidth=1.6).encode(x=x, y=y, color=run_color(colors), strokeDash=dashes),
        chart.mark_point(filled=True, size=36, opacity=1).encode(x=x, y=y, color=run_color(colors), tooltip=details),
        data.chart(named)
        .mark_text(align="right", dx=-6, dy=-8, fontSize=10)
        .encode(x=x, y=alt.Y("height:Q", title=None), text=alt.Text("line:N")),
    ]
    return data.finish(layers if len(lines) > 1 else layers[:-1], description, height=SMALL)


def _reach(rows: Rows) -> tuple[float, float]:
    """The range of the axis: all values, and of wide intervals at most the same span again on either side."""
    values = [row["value"] for row in rows]
    values += [row[end] for row in rows for end in ("noise_low", "noise_high") if row[end] is not None]
    span = (max(values) - min(values)) or 0.2 * abs(values[0]) or 1.0
    ends = [row[end] for row in rows for end in ("low", "high") if row[end] is not None]
    low = max(min([*ends, *values]), min(values) - span)
    high = min(max([*ends, *values]), max(values) + span)
    return low - 0.06 * span, high + 0.12 * span


def critique_chart(rows: Rows, colors: Palette) -> dict[str, Any]:
    """One measure of critiques: its share by principle, with a point and an interval per checkpoint.

    Args:
        rows: rows with label, principle, value, low, high, of, and optionally times.
        colors: colours of the labels.
    """
    import altair as alt

    data = Data()
    labels = list(dict.fromkeys(row["label"] for row in rows))
    principles = list(dict.fromkeys(row["principle"] for row in rows))
    chart = data.chart(rows).transform_filter(NOT_HIDDEN)
    scale = alt.Scale(domain=[0, 1])
    y = alt.Y("principle:N", sort=None, title=None, axis=alt.Axis(labelLimit=120))
    offset = alt.YOffset("label:N", sort=None)
    details = [alt.Tooltip("principle:N"), alt.Tooltip("label:N"), alt.Tooltip("interval:N", title="share")]
    details += [alt.Tooltip(f"{name}:Q") for name in ("times", "of") if name in rows[0]]
    axis = alt.Axis(format="~p", tickCount=4)
    layers = [
        chart.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("low:Q", scale=scale, title=None), x2=alt.X2("high"), y=y, yOffset=offset, color=color(colors)
        ),
        chart.mark_point(filled=True, size=50, opacity=1).encode(
            x=alt.X("value:Q", scale=scale, title=None, axis=axis),
            y=y,
            yOffset=offset,
            color=color(colors),
            tooltip=details,
        ),
    ]
    return data.finish(
        layers, "Share by principle and checkpoint.", height=max(len(principles) * (14 * len(labels) + 8), 70)
    )


def reliability_chart(rows: Rows, colors: Palette) -> dict[str, Any]:
    """How often answers were right by how sure they were, a point and interval per bin; the diagonal is calibrated.

    Args:
        rows: rows with label, confidence, value (the share that was right), low, high and questions.
        colors: colours of the labels.
    """
    import altair as alt

    data = Data()
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("confidence:Q", title="confidence", scale=scale, axis=alt.Axis(format="~p", tickCount=4))
    y = alt.Y("value:Q", title="right", scale=scale, axis=alt.Axis(format="~p", tickCount=4))
    bins = data.chart(rows).transform_filter(NOT_HIDDEN)
    details = [alt.Tooltip("label:N"), alt.Tooltip("questions:Q"), alt.Tooltip("confidence:Q", format=".1%")]
    details.append(alt.Tooltip("interval:N", title="right"))
    layers = [
        data.chart([{"confidence": 0, "value": 0}, {"confidence": 1, "value": 1}])
        .mark_line(strokeDash=[4, 3], color=INK, opacity=0.55)
        .encode(x=x, y=y),
        bins.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
            x=x, y=alt.Y("low:Q", scale=scale, title="right"), y2=alt.Y2("high"), color=color(colors)
        ),
        bins.mark_line(strokeWidth=1.6, point={"filled": True, "size": 45}).encode(
            x=x, y=y, color=color(colors), tooltip=details
        ),
    ]
    return data.finish(layers, "Share of right answers by confidence, by checkpoint.", height=240)


def _found(row: dict[str, Any]) -> str:
    if row.get("red"):
        return "confirmed"
    return "suspicious" if row["level"] is not None and row["p"] <= row["level"] else "no sign"


def _rounds(rows: Rows) -> Any:
    import altair as alt

    rounds = sorted({row["round"] for row in rows})
    return alt.X("round:Q", title="round", axis=alt.Axis(values=rounds, format="d"), scale=alt.Scale(nice=False))
