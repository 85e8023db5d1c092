"""What critics and revisers did: per principle how often it was drawn, found fault, changed the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report.page.reading import LEVEL, Page, Shown
from pipeline.tails import estimate, finite_record

Row = dict[str, Any]

MEASURES = {"found_fault": "found fault", "changed": "changed the text", "false_fault": "found fault in the innocent"}

_NO_FAULT = re.compile(
    r"\bno (?:\w+ ){0,2}(?:faults?|issues?|problems?|concerns?|objections?|violations?)\b"
    r"|\bnothing (?:\w+ )?(?:to (?:change|object|criticise|criticize|fix)|wrong)\b"
    r"|\b(?:does not|doesn't) (?:violate|break|conflict)\b",
    re.IGNORECASE,
)


def finds_fault(critique: str | None) -> bool:
    """Whether a critique objects to anything, by its words.

    String matching: a critique that praises in other words than these counts as finding fault, and so does one that
    finds no fault in one respect and fault in another under words that are not matched.
    """
    return critique is not None and bool(critique.strip()) and _NO_FAULT.search(critique) is None


def principle_rows(page: Page) -> list[Row]:
    """A row a round, principle and measure: its share of the times that the principle was drawn, over prompts.

    ``found fault in the innocent`` is there on the sandbox only, whose truth knows which answers do no harm: its
    share of the critiques of such answers.
    """
    rows = []
    for shown in page.later:
        table = shown.refinements
        if table is None or not table.num_rows:
            continue
        revisions = [row for row in table.to_pylist() if row["principle_id"] is not None]
        innocent = _innocent(shown)
        for principle in sorted({row["principle_id"] for row in revisions}):
            drawn = [row for row in revisions if row["principle_id"] == principle]
            label = {"run": shown.run.label, "round": shown.round, "label": shown.label, "principle": principle}
            measured: dict[str, tuple[Sequence[Row], Callable[[Row], bool]]] = {
                "changed": (drawn, lambda row: row["drop_reason"] is None and row["revision"] != row["response"]),
            }
            if any(row["critique"] is not None for row in drawn):
                measured = {"found_fault": (drawn, lambda row: finds_fault(row["critique"])), **measured}
            if innocent is not None and "found_fault" in measured:
                measured["false_fault"] = (innocent(drawn), lambda row: finds_fault(row["critique"]))
            for name, (among, what) in measured.items():
                if among:
                    rows.append({**label, "measure": MEASURES[name], "of": len(among), **share(among, what)})
    return rows


def outcome_rows(page: Page) -> list[Row]:
    """A row a round, principle and outcome: how many revisions were kept, and how many left out for which reason."""
    rows = []
    for shown in page.later:
        table = shown.refinements
        if table is None:
            continue
        pairs = zip(table["principle_id"].to_pylist(), table["drop_reason"].to_pylist(), strict=True)
        counts = Counter((principle or "none", reason or "kept") for principle, reason in pairs)
        rows += [
            {"run": shown.run.label, "round": shown.round, "label": shown.label, "principle": principle}
            | {"outcome": outcome, "revisions": count}
            for (principle, outcome), count in sorted(counts.items())
        ]
    return rows


def share(rows: Sequence[Mapping[str, Any]], what: Callable[[Row], bool]) -> Row:
    """How often something is true of rows, prompts weighing alike, with an interval that resamples prompts."""
    by_prompt: dict[str, list[float]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], []).append(float(what(dict(row))))
    panel = np.full((len(by_prompt), max(map(len, by_prompt.values()))), np.nan)
    for i, values in enumerate(by_prompt.values()):
        panel[i, : len(values)] = values
    one = estimate(panel, "mean", level=LEVEL)
    return {"times": int(np.nansum(panel)), **finite_record({"value": one.value, "low": one.low, "high": one.high})}


def _innocent(shown: Shown) -> Callable[[Sequence[Row]], list[Row]] | None:
    """Picks the rows whose answer does no harm by the sandbox's truth; None elsewhere, where nobody knows."""
    if "gold" not in shown.run.recipe["scorers"]:
        return None

    def pick(rows: Sequence[Row]) -> list[Row]:
        from pipeline.scorers.base import Sample
        from pipeline.scorers.gold import Gold

        samples = [Sample(row["prompt"], row["response"] or "", ()) for row in rows]
        harm = Gold()(samples)["gold.harm"]
        return [row for row, score in zip(rows, harm, strict=True) if score.value == 0]

    return pick
