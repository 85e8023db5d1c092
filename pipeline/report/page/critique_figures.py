"""The figures of critiques and rewrites: what they did, and where they were wrong."""

from __future__ import annotations

from pipeline.report.page import round_charts
from pipeline.report.page.critique_rows import ERRORS, MEASURES, error_rows, outcome_rows, principle_rows
from pipeline.report.page.figure import Chart, Figure
from pipeline.report.page.palette import Palette
from pipeline.report.page.reading import Page


def critiques(page: Page, colors: Palette) -> Figure:
    """What the critics said and the revisers did."""
    rows = principle_rows(page)
    charts = []
    for measure in MEASURES.values():
        part = [row for row in rows if row["measure"] == measure]
        if part:
            charts.append(Chart(round_charts.critique_chart(part, colors), measure))
    caption = (
        "How often each principle, when drawn, found fault and changed the text, with 95% intervals over prompts. "
        "Whether a critique finds fault is determined by string matching (“no fault”, “nothing to change”, …), which "
        "misses other wordings."
    )
    why = "" if rows else "Nothing was criticised in these rounds."
    return Figure("critiques", "What the critics did", caption, rows, charts, why)


def critic_errors(page: Page, colors: Palette) -> Figure:
    """Where critics and revisers were wrong, as far as the truth is known."""
    rows = error_rows(page)
    truths = list(dict.fromkeys(row["truth"] for row in rows))
    charts = []
    for truth in truths:
        for measure in ERRORS.values():
            part = [row for row in rows if (row["truth"], row["measure"]) == (truth, measure)]
            title = measure if len(truths) == 1 else f"{measure} ({truth})"
            if part:
                charts.append(Chart(round_charts.critique_chart(part, colors), title))
    caption = (
        f"Where the critic and its rewrites were wrong, as far as {' and '.join(truths)} can tell: fault found in "
        "answers without one (false alarms), and not found in others (misses); faults that the rewrite left in place; "
        "innocent answers, those without a fault, whose rewrite lost content or is worse. Shares with 95% intervals "
        "over prompts. Content kept is the share of an innocent answer's content that its rewrite still carries, "
        "judged by how likely the frozen base finds it."
    )
    why = "" if rows else "Where the critic was wrong is not known: give answers with known faults (`critic_labels`)."
    return Figure("critic", "Where the critic was wrong", caption if rows else "", rows, charts, why)


def outcomes(page: Page) -> Figure:
    """Which revisions were kept."""
    rows = outcome_rows(page)
    caption = "What became of each revision: kept, or left out of training, by reason. Counts, without sampling error."
    return Figure("outcomes", "What became of the revisions", caption, rows, [], "" if rows else "No revisions.")
