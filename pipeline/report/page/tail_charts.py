"""The charts of the tail: plane, survival curves, shift function, slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pipeline.report.page.figure import Rows, number, printable
from pipeline.report.page.palette import GREY, Palette
from pipeline.report.page.reading import is_noise
from pipeline.report.page.theme import FAINT, INK, NOT_HIDDEN, Data, color, hues, label_heights, run_color

BETTER, WORSE = "#2A7FBF", "#D55E00"
STRONGEST = 0.6


def plane_chart(rows: Rows, ellipses: Rows, colors: Palette, links: Mapping[str, str]) -> dict[str, Any]:
    """The bulk-tail plane with the path of each run."""
    import altair as alt

    data = Data()
    known = [row | {"link": links.get(row["label"])} for row in rows if row["tail"] is not None]
    path = [row for row in known if not is_noise(row["label"])]
    xs = [row["bulk"] for row in (*known, *ellipses)]
    ys = [row["tail"] for row in (*known, *ellipses)]
    left, right, low, high = min(*xs, 0), max(*xs, 0), min(*ys, 0), max(*ys, 0)
    pad_x, pad_y = 0.12 * (right - left or 1), 0.08 * (high - low or 1)
    left, right, low, high = left - pad_x, right + pad_x, low - pad_y, high + pad_y
    heights = label_heights([(row["bulk"], row["tail"]) for row in path], 0.25 * (right - left), 0.05 * (high - low))
    path = [row | {"height": height} for row, height in zip(path, heights, strict=True)]
    x = alt.X(
        "bulk:Q",
        title="bulk: worse →",
        scale=alt.Scale(domain=[left, right], nice=False),
        axis=alt.Axis(tickCount=7),
    )
    y = alt.Y("tail:Q", title="tail: worse →", scale=alt.Scale(domain=[low, high], nice=False))
    hue = run_color(colors) if len(colors.runs) > 1 else alt.value(INK)
    quadrant = data.chart(
        [{"bulk": left, "to_bulk": 0, "tail": 0, "to_tail": high, "text": "bulk better, tail worse"}]
    )
    regions = data.chart(ellipses).transform_filter(NOT_HIDDEN)
    points = data.chart(path).transform_filter(NOT_HIDDEN)
    details = [
        alt.Tooltip("label:N", title="checkpoint"),
        alt.Tooltip("bulk:Q", format="+.3g"),
        alt.Tooltip("tail:Q", format="+.3g"),
    ]
    layers = [
        quadrant.mark_rect(color=WORSE, opacity=0.07).encode(x=x, x2=alt.X2("to_bulk"), y=y, y2=alt.Y2("to_tail")),
        quadrant.mark_text(align="left", baseline="top", dx=8, dy=8, fontStyle="italic", opacity=0.8).encode(
            x=x, y=alt.Y("to_tail:Q"), text=alt.Text("text:N")
        ),
        data.chart([{"at": 0}]).mark_rule(strokeDash=[2, 3]).encode(x=alt.X("at:Q")),
        data.chart([{"at": 0}]).mark_rule(strokeDash=[2, 3]).encode(y=alt.Y("at:Q")),
        regions.mark_line(filled=True, fillOpacity=0.14, strokeWidth=1, strokeOpacity=0.7).encode(
            x=x,
            y=y,
            order=alt.Order("corner:Q"),
            detail=alt.Detail("label:N"),
            stroke=_hue(alt.Stroke, colors),
            fill=_hue(alt.Fill, colors),
        ),
        data.chart(path)
        .mark_line(strokeWidth=1.5, opacity=0.8)
        .encode(x=x, y=y, order=alt.Order("round:Q"), detail=alt.Detail("run:N"), color=hue),
        points.mark_point(filled=True, size=110, opacity=1).encode(
            x=x, y=y, color=color(colors), tooltip=details, href=alt.Href("link:N")
        ),
        points.mark_text(align="left", dx=9, dy=-7, fontWeight=600).encode(
            x=x, y=alt.Y("height:Q"), text=alt.Text("label:N"), color=color(colors)
        ),
        data.chart([row for row in known if is_noise(row["label"])])
        .mark_text(align="left", dx=9, dy=12, color=GREY)
        .encode(x=x, y=y, text=alt.Text("label:N")),
    ]
    return data.finish(layers, "Bulk-tail plane: the path of the rounds with joint confidence regions.", height=420)


def curve_chart(
    rows: Rows, worst: Rows, thresholds: Sequence[float], colors: Palette, *, lower: bool
) -> dict[str, Any]:
    """Survival curves on a log axis, with the frozen thresholds and the worst samples one by one."""
    import altair as alt

    data = Data()
    floor = 0.6 * min((row["value"] for row in rows if row["value"] > 0), default=min(row["high"] for row in rows))
    top = min(1.3 * max(row["high"] for row in rows), 1.0)
    drawn = [
        row
        | {
            "shown": row["value"] if row["value"] > 0 else floor if _drops(rows, i, lower) else None,
            "from": max(row["low"], floor),
            "to": max(row["high"], floor),
        }
        for i, row in enumerate(rows)
    ]
    named = [row["label"] for row in rows if not is_noise(row["label"])]
    labels = [_nearest(drawn, label, 10 ** (-1.1 - 0.4 * i)) for i, label in enumerate(dict.fromkeys(named))]
    x = alt.X("x:Q", title="score", scale=alt.Scale(zero=False, reverse=lower))
    scale = alt.Scale(type="log", domain=[floor, top], clamp=True)
    y = alt.Y("shown:Q", title="share of samples beyond", scale=scale, axis=alt.Axis(format="~p", tickCount=5))
    side: Literal["step-after", "step-before"] = "step-before" if lower else "step-after"
    noise = data.chart(row for row in drawn if is_noise(row["label"]))
    curves = data.chart(row for row in drawn if not is_noise(row["label"])).transform_filter(NOT_HIDDEN)
    details = [
        alt.Tooltip("label:N", title="checkpoint"),
        alt.Tooltip("x:Q", title="beyond", format=".3g"),
        alt.Tooltip("interval:N", title="share"),
        alt.Tooltip("samples_beyond:Q", title="samples"),
    ]
    sample = [
        alt.Tooltip("label:N", title="sample of"),
        alt.Tooltip("slice:N"),
        alt.Tooltip("score:Q", format=".3g"),
    ]
    frozen = data.chart([{"x": one, "text": f"{one:.3g}", "top": top / 1.5**i} for i, one in enumerate(thresholds)])
    layers = [
        noise.mark_area(interpolate=side, opacity=0.25, color=GREY, clip=True).encode(
            x=x, y=alt.Y("from:Q", scale=scale), y2=alt.Y2("to"), detail=alt.Detail("label:N")
        ),
        noise.mark_line(interpolate=side, strokeWidth=1, color=GREY, clip=True).encode(
            x=x, y=y, detail=alt.Detail("label:N")
        ),
        frozen.mark_rule(strokeDash=[4, 3], color=INK, opacity=0.55).encode(x=alt.X("x:Q")),
        frozen.mark_text(align="left", dx=3, dy=8, opacity=0.8, fontSize=10).encode(
            x=alt.X("x:Q"), y=alt.Y("top:Q", scale=scale), text=alt.Text("text:N")
        ),
        curves.mark_area(interpolate=side, opacity=0.13, clip=True).encode(
            x=x, y=alt.Y("from:Q", scale=scale), y2=alt.Y2("to"), color=color(colors)
        ),
        curves.mark_line(interpolate=side, strokeWidth=2, clip=True).encode(x=x, y=y, color=color(colors)),
        curves.mark_point(size=200, opacity=0).encode(x=x, y=y, tooltip=details),
        data.chart(worst)
        .transform_filter(NOT_HIDDEN)
        .mark_point(filled=True, size=42, opacity=0.9, clip=True)
        .encode(
            x=alt.X("score:Q"),
            y=alt.Y("beyond:Q", scale=scale),
            color=color(colors),
            tooltip=sample,
            href=alt.Href("link:N"),
        ),
        data.chart(labels)
        .transform_filter(NOT_HIDDEN)
        .mark_text(align="left", dx=7, dy=-5, fontWeight=600)
        .encode(x=x, y=y, text=alt.Text("label:N"), color=color(colors)),
    ]
    return data.finish(layers, "How often scores lie beyond each value, by checkpoint, on a log axis.", height=380)


def shift_chart(rows: Rows, colors: Palette) -> dict[str, Any]:
    """The shift function: change of each quantile, from the bulk on the left to the tail on the right."""
    import altair as alt

    data = Data()
    ends = [end for row in rows for end in (row["value"], row["low"], row["high"]) if end is not None]
    low, high = min([*ends, 0]), max([*ends, 0])
    pad = 0.06 * (high - low or 1)
    scale = alt.Scale(domain=[low - pad, high + pad], nice=False)
    drawn = [
        row
        | {
            "from": low - pad if row["low"] is None else row["low"],
            "to": high + pad if row["high"] is None else row["high"],
        }
        for row in rows
    ]
    x = alt.X(
        "share:Q",
        title="← bulk · share of samples that are worse · tail →",
        scale=alt.Scale(type="log", reverse=True, nice=False),
        axis=alt.Axis(format="~p", values=[0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]),
    )
    y = alt.Y("value:Q", title="change since round 0", scale=scale)
    noise = data.chart(row for row in drawn if is_noise(row["label"]))
    curves = data.chart(row for row in drawn if not is_noise(row["label"])).transform_filter(NOT_HIDDEN)
    last = list({row["label"]: row for row in drawn if not is_noise(row["label"])}.values())
    heights = label_heights([(0, row["value"]) for row in last], 1, 0.055 * (high - low))
    named = [row | {"height": height} for row, height in zip(last, heights, strict=True)]
    details = [
        alt.Tooltip("label:N", title="checkpoint"),
        alt.Tooltip("share:Q", title="quantile of the worst", format=".2~%"),
        alt.Tooltip("interval:N", title="change"),
    ]
    band = {"y": alt.Y("from:Q", scale=scale), "y2": "to"}
    layers = [
        noise.mark_area(opacity=0.28, color=GREY, clip=True).encode(x=x, detail=alt.Detail("label:N"), **band),
        data.chart([{"at": 0}]).mark_rule(color=FAINT).encode(y=alt.Y("at:Q")),
        curves.mark_area(opacity=0.15, clip=True).encode(x=x, color=color(colors), **band),
        curves.mark_line(strokeWidth=2, point={"size": 28, "filled": True}).encode(
            x=x, y=y, color=color(colors), tooltip=details
        ),
        data.chart(named)
        .transform_filter(NOT_HIDDEN)
        .mark_text(align="right", dx=-8, dy=-8, fontWeight=600)
        .encode(x=x, y=alt.Y("height:Q"), text=alt.Text("label:N"), color=color(colors)),
    ]
    return data.finish(layers, "Change of each quantile since round 0, with bands, by checkpoint.", height=340)


def slice_chart(rows: Rows, order: Sequence[str], links: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """Slices by checkpoints: blue got better, orange worse; framed where the interval excludes no change."""
    import altair as alt

    data = Data()
    largest = max(abs(row["value"]) for row in rows) or 1.0
    drawn = [
        row
        | {
            "direction": "worse" if row["value"] > 0 else "better",
            "strength": STRONGEST * abs(row["value"]) / largest,
            "text": number(float(f"{row['value']:.2g}"), "+") if row["value"] else "0",
            "frame": 1.6 if row["clear"] else 0,
            "link": links.get((row["label"], row["slice"])),
        }
        for row in rows
    ]
    names = sorted(
        {row["slice"] for row in rows}, key=lambda name: -max(r["value"] for r in rows if r["slice"] == name)
    )
    columns = [label for label in order if any(row["label"] == label for row in rows)]
    cells = data.chart(drawn)
    # Domains rather than sort=[...], which would paste the names into an expression.
    x = alt.X("label:O", scale=alt.Scale(domain=columns), title=None, axis=alt.Axis(orient="top", labelAngle=0))
    y = alt.Y(
        "slice:O",
        scale=alt.Scale(domain=[printable(name) for name in names]),
        title=None,
        axis=alt.Axis(labelLimit=140),
    )
    details = [
        alt.Tooltip("slice:N"),
        alt.Tooltip("label:N", title="checkpoint"),
        alt.Tooltip("interval:N", title="change"),
        alt.Tooltip("prompts:Q"),
    ]
    direction = alt.Color(
        "direction:N", scale=alt.Scale(domain=["better", "worse"], range=[BETTER, WORSE]), legend=None
    )
    layers = [
        cells.mark_rect(stroke=INK, cursor="pointer").encode(
            x=x,
            y=y,
            color=direction,
            fillOpacity=alt.FillOpacity("strength:Q", scale=None),
            strokeWidth=alt.StrokeWidth("frame:Q", scale=None),
            tooltip=details,
            href=alt.Href("link:N"),
        ),
        cells.mark_text(fontSize=10).encode(
            x=x, y=y, text=alt.Text("text:N"), opacity=alt.condition(alt.datum.clear, alt.value(1), alt.value(0.55))
        ),
    ]
    return data.finish(layers, "Change of the tail by slice and checkpoint.", height=max(22 * len(names), 80))


def _hue(channel: Callable[..., Any], colors: Palette) -> Any:

    return channel("label:N", scale=hues(colors), legend=None)


def _drops(rows: Rows, i: int, lower: bool) -> bool:
    """Whether nothing lies beyond row i, and something beyond the row before it on the way to the tail."""
    before = i + 1 if lower else i - 1
    same = 0 <= before < len(rows) and rows[before]["label"] == rows[i]["label"]
    return bool(same and rows[before]["value"] > 0)


def _nearest(rows: Rows, label: str, share: float) -> dict[str, Any]:
    """The row of a curve at which its share is nearest to a given one: where its name is drawn."""
    curve = [row for row in rows if row["label"] == label]
    return min(curve, key=lambda row: abs((row["value"] or 1e-9) - share) / share)
