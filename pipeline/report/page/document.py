"""The page as one HTML file: everything in it, nothing fetched, and no script but its own may run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.report.alarms import alarm_report
from pipeline.report.page.figure import Figure, interval, number, printable
from pipeline.report.page.headline import sentences
from pipeline.report.page.palette import Palette
from pipeline.report.page.reading import Page
from pipeline.report.page.records import cost_rows, differing_fields, editions, provenance_rows
from pipeline.report.page.samples import PairedSample
from pipeline.report.page.theme import CONFIG

ASSETS = Path(__file__).parent / "assets"
SHOWN_ROWS = 60
"""How many rows of a figure's numbers are shown; the CSV file beside the page has them all."""


def render(page: Page, drawn: Sequence[Figure], samples: Sequence[PairedSample], colors: Palette, folder: str) -> str:
    """The page's HTML.

    Whatever comes from a model, a constitution or a name is escaped by the template, and has its invisible characters
    made visible. Charts get it as JSON, in which no tag can begin. A content security policy names the digests of the
    page's own script and style: nothing else runs, nothing is loaded, no form is sent.

    Args:
        page: what is shown.
        drawn: the figures.
        samples: the paired samples.
        colors: colours of the labels.
        folder: where the CSV files are, relative to the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"number": number}
    environment.globals |= {"interval": interval}
    style = (ASSETS / "page.css").read_text(encoding="utf-8") + _swatches(colors)
    script = _bundle() + "\n" + (ASSETS / "page.js").read_text(encoding="utf-8")
    charts = [chart.spec for figure in drawn for chart in figure.charts]
    costs = cost_rows(page)
    text = environment.get_template("page.html.jinja").render(
        title=" against ".join(page.runs),
        page=page,
        policy=_policy(script, style),
        sentences=sentences(page),
        figures=_numbered(drawn),
        shown_rows=SHOWN_ROWS,
        skipped=["run", "round", "line", "corner"] if page.one_run else ["line", "corner"],
        labels=[label for label in colors.labels if any(shown.label == label for shown in page.shown)],
        swatch_of={label: f"swatch-{i}" for i, label in enumerate(colors.labels)},
        alarms=[(shown.label, alarm_report(shown.alarm)) for shown in page.later if shown.alarm],
        samples=samples,
        slices=sorted({one.slice for one in samples}),
        editions=editions(page),
        costs=costs,
        total={
            name: sum(row[name] for row in costs) for name in ("sampled_or_trained_tokens", "seconds", "model_seconds")
        },
        differing=differing_fields(page),
        provenance={name: provenance_rows(run) for name, run in page.runs.items()},
        folder=folder,
    )
    # Inserted as they are, since the policy names their digests; script and style hold nothing that a model wrote.
    return (
        text.replace("/*STYLE*/", style)
        .replace("/*SCRIPT*/", script)
        .replace("/*CHARTS*/", _inert_json({"config": CONFIG, "charts": charts}))
    )


def _numbered(drawn: Sequence[Figure]) -> list[tuple[Figure, list[tuple[int, Any]]]]:
    """Each figure with its charts and their numbers on the page."""
    found, number_of = [], 0
    for figure in drawn:
        found.append((figure, list(enumerate(figure.charts, number_of))))
        number_of += len(figure.charts)
    return found


def _policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inert_json(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _swatches(colors: Palette) -> str:
    return "".join(f".swatch-{i}{{background:{color}}}\n" for i, color in enumerate(colors.colors))


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, made once per process since it takes seconds."""
    import altair
    import vl_convert

    # The version of Vega-Lite that the specifications are written for; vl-convert expects it without the last number.
    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
