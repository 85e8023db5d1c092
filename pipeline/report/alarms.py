"""What alarms leave in the run directory, and how it reads on the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.tails import Comparison, Confirmation, Forecast

Record = dict[str, Any]

COLORS = ("green", "not identified", "amber", "red")
"""From good to bad."""

_GUARANTEE = (
    "If the tail gets worse in no round, the chance of any red over {horizon} rounds is at most {total:.0%}: "
    "{confirmation:.0%} for confirmations, {e_process:.0%} for the e-process. This assumes that reserve prompts are "
    "independent draws, never trained on and used once, and that scorers stay as they are. The e-process holds for "
    "any number of prompts; confirmations hold exactly where a prompt's two rounds are exchangeable, and otherwise "
    "for many prompts. Amber is a suspicion, and has no such bound."
)


def comparison_record(result: Comparison, slice_names: Sequence[str]) -> Record:
    """A comparison for JSON; None where not identified."""
    loudest = {
        name: {"column": test.column, "slice": None if test.slice_id is None else slice_names[test.slice_id]}
        for name, test in result.tests.items()
        if test.identified
    }
    point = result.bulk_tail
    return {
        "verdict": result.verdict,
        "summary": result.summary(),
        "panel_p": result.panel_p,
        "p_values": result.p_values,
        "loudest": loudest,
        "thresholds": list(result.thresholds),
        "thresholds_from": result.thresholds_from,
        "detectable": _finite(result.detectable._asdict()),
        "bulk_tail": {
            "bulk": _number(point.bulk),
            "tail": _number(point.tail),
            "ellipse_90": point.ellipse().tolist() if point.identified else None,
            "p_bulk_better": point.p_bulk_better,
        },
        "estimates": [
            {
                "quantity": row.quantity,
                "threshold": row.threshold,
                **{side: _finite(getattr(row, side)._asdict()) for side in ("baseline", "current", "change")},
            }
            for row in result.estimates
        ],
    }


def confirmation_record(result: Confirmation) -> Record:
    """What a confirmation found, beside the hypothesis that it tested."""
    return {
        "n_prompts": result.test.n_prompts,
        "p_value": _number(result.test.p_value),
        "column": result.test.column,
        "ratio": result.ratio,
        "material": result.material,
        "bulk_better": result.bulk_better,
        "red": result.red,
        "why": result.test.why,
    }


def forecast_record(result: Forecast) -> Record:
    """A forecast for JSON, probabilities on the log10 scale; None where not identified."""
    kept = ("log10_probability", "low", "high", "least_squares", "n_measured", "why")
    return _finite({name: getattr(result, name) for name in kept})


def alarm_report(alarm: Mapping[str, Any]) -> str:
    """The alarm of a round in words: what is suspected, what is confirmed, what could have been missed."""
    if not alarm["round"]:
        return "\n".join(_prepared(one) for one in alarm["properties"])
    entries = [("panel", f"{_label(one)}: {one['summary']}") for one in alarm["properties"]]
    entries += [("forecast", _forecast(one["forecast"][1])) for one in alarm["properties"] if "forecast" in one]
    entries += [("confirmed", _confirmation(one)) for one in alarm["confirmations"]]
    if alarm["color"] == "amber" and not alarm["confirmations"]:
        entries.append(("confirmed", "nothing: red takes fresh prompts (`reserve`) within the declared `horizon`"))
    if watch := alarm["e_process"]:
        size, limit = _exponential(watch["log_value"]), 1 / alarm["levels"]["e_process"]
        count = f"{watch['n_prompts']:,} fresh prompts this round" if watch["n_prompts"] else "none left this round"
        entries.append(("e-process", f"{size} (red at {limit:.0f}); {count}"))
    if alarm["reserve"]:
        counts = (f"{key} {count['left']:,} of {count['of']:,}" for key, count in alarm["reserve"].items())
        entries.append(("fresh", f"prompts left: {', '.join(counts)}"))
    return "\n".join(
        [f"Round {alarm['round']}   alarm: {alarm['color'].upper()}", *(_wrapped(*one) for one in entries)]
    )


def _wrapped(name: str, text: str) -> str:
    return textwrap.fill(text, 118, initial_indent=f"  {name:<11}", subsequent_indent=" " * 13)


def guarantee(alarm: Mapping[str, Any]) -> str:
    """What a red alarm is worth, and what that assumes."""
    levels = alarm["levels"]
    total = levels["confirmation"] + levels["e_process"]
    return _GUARANTEE.format(total=total, **levels)


def _prepared(one: Mapping[str, Any]) -> str:
    beyond = ", ".join(f"{threshold:.3g}" for threshold in one["thresholds"]) or "not identified"
    p = one["noise_floor"]["panel_p"]
    noise = "not identified" if p is None else f"p = {p:.2g}"
    return f"  {_label(one)}: tail beyond {beyond} ({one['thresholds_from']}); base against itself: {noise}"


def _label(one: Mapping[str, Any]) -> str:
    return f"{one['scorer']}{', low end' if one['tail'] == 'lower' else ''}"


def _confirmation(one: Mapping[str, Any]) -> str:
    where = f" in {one['slice']}" if one["slice"] else ""
    if not one["n_prompts"]:
        return f"{_label(one)}{where}: not tested, {one['why']}"
    if one["p_value"] is None:
        return f"{_label(one)}{where}: not identified on {one['n_prompts']:,} fresh prompts, {one['why']}"
    word = "RED" if one["red"] else "no"
    better = ", while the bulk got better" if one["red"] and one["bulk_better"] else ""
    return (
        f"{_label(one)}{where}: {word}, p = {one['p_value']:.2g} at level {one['alpha']:.2g} on "
        f"{one['n_prompts']:,} fresh prompts, x {one['ratio']:.3g} beyond the threshold{better}"
    )


def _forecast(one: Mapping[str, Any]) -> str:
    then, now = (_power_of_ten(one[side]["log10_probability"]) for side in ("baseline", "current"))
    return f"the worst of {one['n_prompts']:,} prompts begins undesired with probability {now}; at round 0 {then}"


def _exponential(log_value: float) -> str:
    exponent = log_value / math.log(10)
    return f"{math.exp(log_value):.3g}" if exponent < 300 else f"1e+{exponent:.0f}"


def _power_of_ten(exponent: float | None) -> str:
    return "not identified" if exponent is None else f"{10**exponent:.2g}"


def _finite(record: Mapping[str, Any]) -> Record:
    return {key: _number(value) if isinstance(value, float) else value for key, value in record.items()}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
