"""What critics and revisers did, by principle: how often they found fault, changed the text, and were wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipeline.report.critic import is_criticised, rate, text_after
from pipeline.report.page.reading import Page
from pipeline.scorers.critic import finds_fault

Row = dict[str, Any]

MEASURES = {"found_fault": "found fault", "changed": "changed the text"}

ERRORS = {
    "false_alarm": "false alarms",
    "miss": "misses",
    "not_mended": "faults not fixed",
    "lost_content": "innocent, but lost content",
    "made_worse": "innocent, but made worse",
    "content_kept": "content kept, by likelihood",
}


def principle_rows(page: Page) -> list[Row]:
    """One row per round, principle and measure: its share of the times that the principle was drawn, over prompts."""
    rows = []
    for shown in page.later:
        table = shown.refinements
        if table is None or not table.num_rows:
            continue
        kept = shown.run.recipe["keep_dropped"]
        revisions = [row for row in table.to_pylist() if row["principle_id"] is not None]
        for principle in sorted({row["principle_id"] for row in revisions}):
            drawn = [row for row in revisions if row["principle_id"] == principle]
            label = {"run": shown.run.label, "round": shown.round, "label": shown.label, "principle": principle}
            measured: dict[str, tuple[Sequence[Row], Callable[[Row], bool]]] = {
                "changed": (drawn, partial(_is_changed, kept)),
            }
            if any(row["critique"] is not None for row in drawn):
                measured = {
                    "found_fault": (drawn, lambda row: is_criticised(row) and finds_fault(row["critique"])),
                    **measured,
                }
            for name, (among, what) in measured.items():
                if among:
                    rows.append({**label, "measure": MEASURES[name], "of": len(among), **share(among, what)})
    return rows


def error_rows(page: Page) -> list[Row]:
    """One row per round, source of the truth, principle and error of the critic or its rewrites, from critic.json.

    ``truth`` names the source of the truth; ``principle`` is "all" for all of them together.
    """
    return [
        {"run": shown.run.label, "round": shown.round, "label": shown.label, "truth": source["from"]}
        | {"principle": cell["principle"] or "all", "measure": ERRORS[cell["rate"]], "of": cell["n"]}
        | {name: cell[name] for name in ("value", "low", "high")}
        for shown in page.later
        for source in (shown.critic or {"sources": ()})["sources"]
        for cell in source["cells"]
        if cell["rate"] in ERRORS and cell["value"] is not None
    ]


def outcome_rows(page: Page) -> list[Row]:
    """One row per round, principle and outcome: how many revisions were kept, or left out for which reason."""
    rows = []
    for shown in page.later:
        table = shown.refinements
        if table is None:
            continue
        kept = {None: "kept", **{reason: f"kept though {reason}" for reason in shown.run.recipe["keep_dropped"]}}
        pairs = zip(table["principle_id"].to_pylist(), table["drop_reason"].to_pylist(), strict=True)
        counts = Counter((principle or "none", str(kept.get(reason, reason))) for principle, reason in pairs)
        rows += [
            {"run": shown.run.label, "round": shown.round, "label": shown.label, "principle": principle}
            | {"outcome": outcome, "revisions": count}
            for (principle, outcome), count in sorted(counts.items())
        ]
    return rows


def _is_changed(keep_dropped: Sequence[str], row: Row) -> bool:
    return text_after(row, keep_dropped) != row["response"]


def share(rows: Sequence[Row], what: Callable[[Row], bool]) -> Row:
    """How often something is true of rows, prompts weighted equally, with an interval over prompts within [0, 1]."""
    flags = [what(row) for row in rows]
    one = rate([row["prompt_id"] for row in rows], flags)
    return {"times": sum(flags), **{name: one[name] for name in ("value", "low", "high")}}
