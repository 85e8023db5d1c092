"""A comparison in machine-readable form: one JSON object, or one CSV row per number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.comparing.comparison import Entry, SideBySide
from pipeline.comparing.differences import engine_of, find_differences, round_data
from pipeline.comparing.pairs import Pair
from pipeline.comparing.verdicts import alarm_color
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.costs import Price, cost_so_far, round_cost

Record = dict[str, Any]

CSV_COLUMNS = (
    *("checkpoint", "scorer", "tail", "probe_set", "slice", "quantity", "threshold"),
    *("value", "low", "high", "n_prompts", "n_samples", "prompts_beyond", "samples_beyond", "n_dropped", "why"),
    *("change", "change_low", "change_high", "change_why", "verdict", "verdict_from", "p_value", "detectable"),
)


def as_json(found: SideBySide, price: Price | None, pairs: Sequence[Pair]) -> str:
    """The whole comparison with its intervals; what is not identified or not bounded is null."""
    record = {
        "baseline": found.checkpoints[0].label,
        "headline": found.headline,
        "level": found.level,
        "prompts": {name: {"common": common, "of": of} for name, (common, of) in found.prompts.items()},
        "overlooked": [one._asdict() | {"checkpoint": one.checkpoint.label} for one in found.overlooked],
        "left_out": found.left_out,
        "checkpoints": [_checkpoint(one, price) for one in found.checkpoints],
        "differences": [
            one._asdict() | {"checkpoint": one.checkpoint.label} for one in find_differences(found.checkpoints)
        ],
        "cells": list(_cells(found)),
        "verdicts": [_verdict(entry, found) for entry in found.entries if entry.verdict],
        "pairs": [pair._asdict() | {"before": pair.before._asdict(), "after": pair.after._asdict()} for pair in pairs],
    }
    # In ASCII: what a model wrote may end up on a terminal, which obeys some characters that JSON leaves as they are.
    return json.dumps(record, indent=2)


def as_csv(found: SideBySide) -> str:
    """One row per checkpoint, score, slice and quantity: value and change with their intervals, and the verdict."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for entry in found.entries:
        verdict = entry.verdict
        said: Record = {}
        if verdict:
            said = {"verdict": verdict.color, "verdict_from": verdict.source}
            said |= {"p_value": verdict.p_value, "detectable": verdict.detectable}
        writer.writerows(cell | said for cell in _cells_of(entry, found))
    return text.getvalue().rstrip("\n")


def _cells(found: SideBySide) -> Iterator[Record]:
    for entry in found.entries:
        yield from _cells_of(entry, found)


def _cells_of(entry: Entry, found: SideBySide) -> Iterator[Record]:
    for cell in entry.cells.values():
        record = {"checkpoint": found.checkpoints[entry.checkpoint].label}
        record |= {name: value for name, value in cell.items() if not name.startswith("baseline_")}
        if entry.checkpoint:
            ends = {"change": "value", "change_low": "low", "change_high": "high", "change_why": "why"}
            record |= {name: cell[f"baseline_{end}"] for name, end in ends.items()}
        yield record


def _verdict(entry: Entry, found: SideBySide) -> Record:
    assert entry.verdict is not None
    return {
        "checkpoint": found.checkpoints[entry.checkpoint].label,
        **entry.group._asdict(),
        "verdict": entry.verdict.color,
        "loudest_slice": entry.verdict.slice,
        "verdict_from": entry.verdict.source,
        "p_value": entry.verdict.p_value,
        "detectable": entry.verdict.detectable,
        "thresholds": list(entry.verdict.thresholds),
    }


def _checkpoint(checkpoint: Checkpoint, price: Price | None) -> Record:
    data, so_far = round_data(checkpoint), cost_so_far(checkpoint)
    return {
        "checkpoint": checkpoint.label,
        "run": str(checkpoint.run.path),
        "round": checkpoint.round,
        "alarm": alarm_color(checkpoint),
        "engine": engine_of(checkpoint),
        "data": data._asdict() if data else None,
        "cost": round_cost(checkpoint)._asdict(),
        "cost_so_far": so_far._asdict() | ({"money": so_far.money(price)} if price else {}),
    }
