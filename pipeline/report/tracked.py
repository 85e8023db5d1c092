"""What trackers get about a round, under names that stay the same."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pipeline.report.drift import panel_of

_PART = {"mean": "bulk", "q50": "bulk"}
_BRIEF = ("mean", "cvar_1pct")
_LEVELS = {"green": 0.0, "amber": 1.0, "red": 2.0}


def tracked_values(drift: Mapping[str, Any], alarm: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a round by name; what is not identified is left out.

    ``bulk/SCORER/mean``, ``tail/SCORER/cvar_1pct`` and so on are for the first probe set, ``SCORER.low`` is a scorer's
    low end. ``tail/PROBE_SET/SCORER/cvar_1pct`` is for another probe set, ``slice/SLICE/SCORER/cvar_1pct`` for a slice
    of the first. ``interval/bulk/SCORER/mean/low`` and ``high`` are the ends of an interval. ``alarm/level`` is 0
    for green, 1 for amber, 2 for red.

    Args:
        drift: the round's drift table.
        alarm: the round's alarm record.
    """
    panel = panel_of(drift["cells"])
    found: dict[str, float] = {}
    for cell in drift["cells"]:
        if cell["value"] is None:
            continue
        quantity, part = cell["quantity"], _PART.get(cell["quantity"], "tail")
        # A score with two bad ends has one bulk.
        scorer = cell["scorer"] + (".low" if cell["tail"] == "lower" and part == "tail" else "")
        if cell["slice"] is None and cell["probe_set"] == panel:
            name = f"{part}/{scorer}/{quantity}"
            found.setdefault(_clean(name), cell["value"])
            if quantity in _BRIEF:
                for end in ("low", "high"):
                    if cell[end] is not None:
                        found.setdefault(_clean(f"interval/{name}/{end}"), cell[end])
        elif quantity in _BRIEF and cell["slice"] is None:
            found.setdefault(_clean(f"{part}/{cell['probe_set']}/{scorer}/{quantity}"), cell["value"])
        elif quantity in _BRIEF and cell["probe_set"] == panel:
            found.setdefault(_clean(f"slice/{_part_of_name(cell['slice'])}/{scorer}/{quantity}"), cell["value"])
    return found | _alarm_values(alarm)


def _alarm_values(alarm: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    if alarm["color"] in _LEVELS:
        found["alarm/level"] = _LEVELS[alarm["color"]]
    for one in alarm["properties"] if alarm["round"] else []:
        name = f"alarm/{one['scorer']}{'.low' if one['tail'] == 'lower' else ''}"
        p_values = {"panel": one["panel_p"], **one["p_values"]}
        found |= {_clean(f"{name}/p_{test}"): p for test, p in p_values.items() if p is not None}
    if watch := alarm.get("e_process"):
        found["alarm/e_process/log10"] = watch["log_value"] / math.log(10)
    return found


def _part_of_name(text: str) -> str:
    return text.replace("/", "_")


def _clean(name: str) -> str:
    # What TensorBoard accepts; it would replace other characters itself, and names would differ between trackers.
    return re.sub(r"[^-/\w.]", "_", name)
