"""How much of innocent answers rewrites kept, by likelihood: cells for critic.json, and how true that measure is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.report.critic import Record, Row, flat
from pipeline.report.panels import as_panel
from pipeline.tails import estimate, finite_record, roc_area, wilson

CELLS = ("content_kept", "content_kept_if_changed", "content_kept_worst_tenth")


def content_cells(rows: Sequence[Row]) -> list[Record]:
    """The share of content that rewrites kept, over all principles (``principle`` is None) and for each.

    * ``content_kept``: the mean over prompts; an answer that was not changed kept all.
    * ``content_kept_if_changed``: the same over the answers whose rewrite is another text.
    * ``content_kept_worst_tenth``: the most that the worst tenth of these kept.

    The intervals of the means are Wilson intervals over prompts: a number in [0, 1] varies at most as much as a yes or
    no with the same mean, so they are conservative, and they hold even where nearly all answers kept everything.

    Args:
        rows: rows of a ``CONTENT`` table; those without a score are left out.
    """
    known = [row for row in rows if row["score"] is not None]
    cells = []
    for principle in [None, *sorted({row["principle_id"] for row in known})]:
        own = [row for row in known if principle in (None, row["principle_id"])]
        changed = [row for row in own if row["n_facts"]]
        worst_tenth = flat(estimate(_panel(changed), "q90", tail="lower"), len(changed))
        for name, cell in zip(CELLS, (_mean(own), _mean(changed), worst_tenth), strict=True):
            cells.append({"principle": principle, "rate": name, **cell})
    return cells


def _panel(rows: Sequence[Row]) -> np.ndarray:
    return as_panel([row["prompt_id"] for row in rows], [row["score"] for row in rows])


def _mean(rows: Sequence[Row]) -> Record:
    panel = _panel(rows)
    value = float(np.nanmean(panel, axis=1).mean()) if rows else float("nan")
    low, high = wilson(value, len(panel))
    why = "" if rows else "not known of any rewrite"
    return finite_record(
        {"value": value, "low": low, "high": high, "why": why, "n": len(rows), "n_prompts": len(panel)}
    )


def content_missing(rows: Sequence[Row]) -> dict[str, int]:
    """Why shares are missing, and how often, the most frequent first."""
    return dict(Counter(row["reason"] for row in rows if row["score"] is None).most_common())


def content_nats(rows: Sequence[Row]) -> Record | None:
    """Mean nats per token of the facts, with nothing, the answer or its rewrite shown; None if none was scored."""
    scored = [row for row in rows if row["nothing"] is not None]
    if not scored:
        return None
    return {name: float(np.mean([row[name] for row in scored])) for name in ("nothing", "response", "revision")}


def content_against_truth(rows: Sequence[Row], lost: Mapping[tuple[str, int, int], bool]) -> Record:
    """Area under the ROC curve of 1 - share kept, for telling which changed answers truly lost content.

    Args:
        rows: rows of a ``CONTENT`` table.
        lost: whether content was truly lost, by prompt, sample and pass.
    """
    pairs = [
        (1 - row["score"], lost[key])
        for row in rows
        if row["n_facts"]
        and row["score"] is not None
        and (key := (row["prompt_id"], row["sample"], row["revision_index"])) in lost
    ]
    return finite_record(roc_area([score for score, _ in pairs], [truly for _, truly in pairs])._asdict())
