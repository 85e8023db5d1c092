"""Summary of a stage's tables, for its manifest: rows, drops by reason, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.runs import ranks


def stage_facts(folder: Path, outputs: Sequence[str], keep: Sequence[str] = ()) -> dict[str, Any]:
    """Rows and dropped rows by reason of each table, and tokens added up over them (rank 0; empty elsewhere).

    Rows with a drop reason in ``keep`` are trained on anyway: they count as ``kept``, not as dropped.
    """
    if not ranks.is_main():
        return {}
    rows: dict[str, int] = {}
    dropped: dict[str, dict[str, int]] = {}
    kept: dict[str, dict[str, int]] = {}
    tokens = {"prompt": 0, "new": 0}
    for name in outputs:
        file = pq.ParquetFile(folder / name)
        rows[name] = file.metadata.num_rows
        columns = set(file.schema_arrow.names)
        if "drop_reason" in columns:
            reasons = count_values(folder / name, "drop_reason")
            dropped[name] = {reason: count for reason, count in reasons.items() if reason not in keep}
            if of_kept := {reason: count for reason, count in reasons.items() if reason in keep}:
                kept[name] = of_kept
        if "new_tokens" in columns:
            cost = file.read(columns=["prompt_tokens", "new_tokens"])
            tokens["prompt"] += pc.sum(cost["prompt_tokens"]).as_py() or 0
            tokens["new"] += pc.sum(cost["new_tokens"]).as_py() or 0
    return {"rows": rows, "dropped": dropped, "tokens": tokens} | ({"kept": kept} if kept else {})


def count_values(path: Path, column: str) -> dict[str, int]:
    """How often each value of a column occurs in a table, most frequent first; nulls are not counted."""
    counts = pq.read_table(path, columns=[column])[column].value_counts().to_pylist()
    pairs = [(row["values"], row["counts"]) for row in counts if row["values"] is not None]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
