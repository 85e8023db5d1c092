"""What alarms write into the run directory, and how it is shown on the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from pipeline.report.numbers import end_of
from pipeline.tails import Confirmation, Forecast, finite_record

Record = dict[str, Any]

_GUARANTEE = (
    "If the tail never gets worse, the chance of any red over {horizon} round{s} is at most {total:.0%}: "
    "{confirmation:.0%} for confirmations, {e_process:.0%} for the e-process. This assumes that reserve prompts are "
    "independent draws, never trained on and used once, and that scorers stay as they are. The e-process holds for "
    "any number of prompts; confirmations hold exactly where a prompt's two rounds are exchangeable, and otherwise "
    "approximately, for many prompts. Amber is only a suspicion and has no such bound."
)


def confirmation_record(result: Confirmation) -> Record:
    """The result of a confirmation, stored next to the hypothesis that it tested."""
    return finite_record(
        {
            "n_prompts": result.test.n_prompts,
            "p_value": result.test.p_value,
            "column": result.test.column,
            "ratio": result.ratio,
            "material": result.material,
            "bulk_better": result.bulk_better,
            "red": result.red,
            "why": result.test.why,
        }
    )


def forecast_record(result: Forecast) -> Record:
    """A forecast for JSON, probabilities on the log10 scale; None where not identified."""
    kept = ("log10_probability", "low", "high", "least_squares", "n_measured", "why")
    return finite_record({name: getattr(result, name) for name in kept})


_NOTHING_TO_ASK_WITH = (
    "red needs fresh prompts (`reserve`) within the declared `horizon`, in which a round that is trained again counts "
    "again"
)
_NOTHING_TO_SEE = "fresh prompts would show no more of answers that get no score"
_NOTHING_TO_ASK = "where all prompts moved alike, as they do when a model gets sharper, no fresh prompts are used"


def alarm_report(alarm: Mapping[str, Any]) -> str:
    """The alarm of a round in words: what is suspected, what is confirmed, what could have been missed."""
    if not alarm["round"]:
        return "\n".join(_prepared(one) for one in alarm["properties"])
    entries = [("panel", f"{_label(one)}: {one['summary']}") for one in alarm["properties"]]
    entries += [("forecast", _forecast(one["forecast"][1])) for one in alarm["properties"] if "forecast" in one]
    entries += [("confirmed", _confirmation(one)) for one in alarm["confirmations"]]
    if alarm["color"] == "amber" and not alarm["confirmations"]:
        levels = alarm["levels"]
        could = bool(alarm["reserve"]) and max(alarm["round"], levels["spent"] + 1) <= levels["horizon"]
        hidden = any(one["hides"] for one in alarm["properties"])
        why = _NOTHING_TO_ASK_WITH if not could else _NOTHING_TO_SEE if hidden else _NOTHING_TO_ASK
        entries.append(("confirmed", f"nothing: {why}"))
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
    return _GUARANTEE.format(total=total, s="s" * (levels["horizon"] > 1), **levels)


def _prepared(one: Mapping[str, Any]) -> str:
    beyond = ", ".join(f"{threshold:.3g}" for threshold in one["thresholds"]) or "not identified"
    p = one["noise_floor"]["panel_p"]
    noise = "not identified" if p is None else f"p = {p:.2g}"
    return f"  {_label(one)}: tail beyond {beyond} ({one['thresholds_from']}); base against itself: {noise}"


def _label(one: Mapping[str, Any]) -> str:
    return end_of(one["scorer"], one["tail"])


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
    return (
        f"the worst of {one['n_prompts']:,} prompts begins with an undesired opening with probability {now}; "
        f"at round 0: {then}"
    )


def _exponential(log_value: float) -> str:
    exponent = log_value / math.log(10)
    return f"{math.exp(log_value):.3g}" if exponent < 300 else f"1e+{exponent:.0f}"


def _power_of_ten(exponent: float | None) -> str:
    return "not identified" if exponent is None else f"{10**exponent:.2g}"
