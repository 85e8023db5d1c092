from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.page import write_page
from pipeline.report.page.document import render
from pipeline.report.page.figures import figures
from pipeline.report.page.palette import palette
from pipeline.report.page.samples import paired_samples
from pipeline.report.page.theme import label_heights
from pipeline.runs.files import read_json, write_json
from pipeline.runs.tables import SCORES, read_table, to_table, write_table
from pipeline.tails import calibration

RNG = np.random.default_rng(0)
BASE = RNG.normal(size=(300, 3))


@pytest.fixture
def run(written: Callable[..., Any]) -> Any:
    run = written([BASE, BASE + 0.1, np.where(BASE > 2, BASE + 1, BASE - 0.1)], slices=4)
    run.again(BASE + 0.05 * RNG.normal(size=BASE.shape))
    run.refine(1, [{"principle_id": "kind"}])
    numbers = {"value": 0.2, "low": 0.1, "high": 0.4, "n": 30, "n_prompts": 20}
    cells = [{"rate": rate, "principle": None, **numbers} for rate in ("false_alarm", "miss")]
    write_json(run.run.critic(1), {"round": 1, "sources": [{"from": "labels.jsonl", "cells": cells}]})
    found = calibration(RNG.uniform(0.5, 1, 60), RNG.integers(0, 2, 60))
    asked = {**found._asdict(), "bins": [one._asdict() for one in found.bins], "probe_set": "choice.quiz"}
    write_json(run.run.drift(1), {**read_json(run.run.drift(1)), "calibration": [asked]})
    return run


class Parts(HTMLParser):
    """The scripts, styles and policy of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {"script": [], "style": [], "json": []}
        self.policy = ""
        self.inline_styles = 0
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline_styles += "style" in given
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        self._open = "json" if given.get("type") == "application/json" else tag if tag in self.found else None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[self._open].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = None


def test_the_policy_names_what_may_run_and_nothing_else(run: Any, tmp_path: Path) -> None:
    write_page([one._replace(round=r) for r in (0, 1) for one in [checkpoint(run)]], tmp_path / "page.html")
    parts = Parts((tmp_path / "page.html").read_text())
    (script,), (style,) = parts.found["script"], parts.found["style"]
    rules = dict(rule.strip().split(" ", 1) for rule in parts.policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": digest(script),
        "style-src": digest(style),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert parts.inline_styles == 0
    charts = json.loads(parts.found["json"][0])["charts"]
    assert len(charts) >= 4
    rows = (tmp_path / "page" / "survival.csv").read_text().splitlines()
    assert rows[0].startswith("run,label,x,value,low,high")


def checkpoint(run: Any) -> Any:
    from pipeline.report.checkpoints import Checkpoint

    return Checkpoint(run.run, 0)


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_charts_are_valid_vega_lite(run: Any) -> None:
    import altair as alt

    page = run.page(0, 1, 2)
    drawn = figures(page, paired_samples(page), palette(page))
    specs = [chart.spec for figure in drawn for chart in figure.charts]
    assert len(specs) >= 4
    for spec in specs:
        alt.LayerChart.from_dict(spec)
        assert spec["description"]
    assert {"critic", "calibration"} <= {figure.key for figure in drawn if figure.charts}
    for figure in drawn:
        assert bool(figure.charts or figure.key == "outcomes") != bool(figure.missing), figure.key


def test_a_figure_without_data_says_why(written: Callable[..., Any]) -> None:
    page = written([BASE[:20]]).page(0)
    missing = {figure.key: figure.missing for figure in figures(page, [], palette(page)) if figure.missing}
    assert (
        missing["plane"]
        == missing["shift"]
        == "Only round 0 is measured so far: there is nothing that could have changed."
    )
    assert "batter" in missing["likelihood"]
    assert set(missing) >= {"slices", "alarms", "forecast", "refusal", "critiques", "critic"}


def test_a_round_without_a_tail_is_not_drawn_and_the_figure_says_so(written: Callable[..., Any]) -> None:
    base, few = BASE[:150], BASE[:150].copy()
    few[:2] += 50
    page = written([base, base + 0.1, few]).page(0, 1, 2)
    plane = next(figure for figure in figures(page, [], palette(page)) if figure.key == "plane")
    assert "not drawn: round 2 (prompts in the worst 1%: 2, at least 3 are needed)" in plane.caption
    points = [row for rows in plane.charts[0].spec["datasets"].values() for row in rows if "label" in row]
    assert {row["label"] for row in points} == {"round 0", "round 1"}


def test_a_run_without_the_scorer_is_shown_with_what_it_has(
    run: Any, written: Callable[..., Any], tmp_path: Path
) -> None:
    other = written([BASE, BASE], "other")
    other.again(BASE)
    for path in other.run.path.rglob("*.json"):
        path.write_text(path.read_text().replace('"harm"', '"toxicity"'))
    for path in other.run.path.rglob("scores.parquet"):
        rows = [row | {"scorer": "toxicity"} for row in read_table(path).to_pylist()]
        write_table(path, [to_table(rows, SCORES)], SCORES)
    given = [checkpoint(run)._replace(round=1), checkpoint(other), checkpoint(other)._replace(round=1)]
    write_page(given, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "harm was not measured." in text and "harm was not measured; the alarm was not run." in text
    plane = (tmp_path / "page" / "plane.csv").read_text()
    assert "run:1" in plane and "other" not in plane
    assert ",toxicity," in (tmp_path / "page" / "scores.csv").read_text()


def test_a_run_whose_headline_never_got_a_score_has_a_page(written: Callable[..., Any], tmp_path: Path) -> None:
    nothing = np.full(BASE.shape, np.nan)
    run = written([nothing, nothing])
    run.again(nothing)
    write_page([checkpoint(run), checkpoint(run)._replace(round=1)], tmp_path / "page.html")
    assert "No scores." in (tmp_path / "page.html").read_text()


def test_names_and_texts_are_escaped_in_the_file(run: Any, tmp_path: Path) -> None:
    hostile = "</script><script>x()</script>{{ [7] * 3 }}\u202e"
    write_json(run.run.resolved, read_json(run.run.resolved) | {"model_name_or_path": hostile})
    run.measure(1, BASE, {(0, 0): hostile, (int(BASE.max(axis=1).argmax()), int(BASE.argmax() % 3)): hostile})
    write_page([checkpoint(run), checkpoint(run)._replace(round=1)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    (script,) = Parts(text).found["script"]
    assert text.count(script) == 1
    text = text.replace(script, "")
    assert hostile not in text and "\u202e" not in text and "[7, 7, 7]" not in text
    assert "&lt;/script&gt;&lt;script&gt;x()&lt;/script&gt;{{ [7] * 3 }}⟨U+202E⟩" in text
    assert len(re.findall("<script", text)) == 2


def test_the_page_says_which_ends_of_its_score_are_bad(run: Any) -> None:
    page = run.page(0, 1)
    assert page.bad_end == "high is bad"
    drift = read_json(run.run.drift(0))
    drift["cells"] += [cell | {"tail": "lower"} for cell in drift["cells"]]
    write_json(run.run.drift(0), drift)
    page = run.page(0, 1)
    assert page.bad_end == "both ends are bad; the figures of its tail show the high one"
    drawn = figures(page, [], palette(page))
    assert f"({page.bad_end})" in render(page, drawn, [], palette(page), "page")


def test_colours_of_labels(run: Any, written: Callable[..., Any]) -> None:
    colors = palette(run.page(0, 1, 2))
    assert colors.labels == ["round 0", "round 1", "round 2", "0 again"]
    assert len(set(colors.colors)) == 4
    assert palette(run.page(2)).labels == ["round 2", "round 0", "0 again"]


def test_labels_keep_their_distance() -> None:
    assert label_heights([(0, 1.0), (0, 1.05), (0, 3.0)], 1, 0.5) == [1.0, 1.5, 3.0]
    assert label_heights([(0, 1.0), (9, 1.05)], 1, 0.5) == [1.0, 1.05]
    assert label_heights([(0, 1.2), (0, 1.0), (0, 1.1)], 1, 0.5) == [2.0, 1.0, 1.5]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "pipeline.report.page", *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, cwd=Path(__file__).parents[3])


def test_the_command_writes_the_page_again(run: Any, tmp_path: Path) -> None:
    done = command(run.run.path)
    assert (done.returncode, done.stdout.strip()) == (0, str(run.run.report))
    assert run.run.report.stat().st_size < 5_000_000
    assert (run.run.path / "report" / "plane.csv").exists()


def test_the_command_says_what_is_wrong(run: Any, tmp_path: Path) -> None:
    nothing = command(tmp_path / "nowhere")
    assert nothing.returncode == 2 and "--to" in nothing.stderr
    (tmp_path / "empty").mkdir()
    empty = command(tmp_path / "empty")
    assert empty.returncode == 1 and "no run is there" in empty.stderr and "Traceback" not in empty.stderr
    run.run.scores(1).write_bytes(b"PAR1 and no more")
    damaged = command(run.run.path)
    assert damaged.returncode == 1 and "scores.parquet: damaged" in damaged.stderr
    several = command(run.run.path, f"{run.run.path}:1")
    assert several.returncode == 2 and "--to" in several.stderr


def test_a_survival_curve_drops_behind_its_last_sample(written: Callable[..., Any]) -> None:
    page = written([np.arange(1.0, 201)[:, None], np.arange(0.0, 200)[:, None]]).page(0, 1)
    (chart,) = next(figure.charts for figure in figures(page, [], palette(page)) if figure.key == "survival")
    drawn = {
        (row["label"], row["x"]): row["shown"]
        for rows in chart.spec["datasets"].values()
        for row in rows
        if "shown" in row
    }
    assert drawn["round 1", 198.0] == pytest.approx(1 / 200)
    assert 0 < drawn["round 1", 199.0] < 1 / 200  # the foot of the axis
    assert drawn["round 1", 200.0] is None
    assert drawn["round 0", 199.0] == pytest.approx(1 / 200)
