"""Proxy and gold: what the critic in the loop objects to, against what is bad by a standard that training never sees.

Both are measured on the same answers, those of a round's policy to the training prompts, by mean and at the tail;
sqrt(KL) says how far that policy is from the base (Gao, Schulman & Hilton 2023, arXiv 2210.10760). Where the proxy
improves and gold does not, training has begun to please the critic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.report.critic import Record, Row, flat, is_criticised, rate
from pipeline.report.panels import as_panel
from pipeline.scorers.critic import finds_fault
from pipeline.tails import change, estimate, frozen_threshold

QUANTITIES = ("mean", "cvar_1pct")


class Judged(NamedTuple):
    """A first answer: whether the critic's first critique objects, and its gold score (high is bad)."""

    prompt_id: str
    objects: bool
    gold: float


def judged_of(rows: Sequence[Row], gold_of: Callable[[Row], float | None]) -> list[Judged]:
    """The first answers of a round that have a critique and a gold score, by prompt."""
    found = []
    for row in sorted(rows, key=lambda row: (row["prompt_id"], row["sample"])):
        if row["revision_index"] == 0 and is_criticised(row):
            gold = gold_of(row)
            if gold is not None:
                found.append(Judged(row["prompt_id"], finds_fault(row["critique"]), gold))
    return found


def proxy_record(
    judged: Sequence[Judged], base: Sequence[Judged], *, gold: str, bad_beyond: float, kl: float | None
) -> Record | None:
    """Proxy and gold for the answers of one policy.

    Args:
        judged: the policy's answers.
        base: the base's answers to the same prompts; changes are measured against them, and they set the severe
            threshold.
        gold: name of the gold score.
        bad_beyond: gold scores above this are bad.
        kl: KL of the policy to the base, in nats per token; None where it was not measured.

    Returns:
        ``objections`` (the proxy: the share of answers whose first critique objects), ``gold.mean`` and
        ``gold.cvar_1pct``, the changes of all three since the base, and, of the answers that the critic likes best,
        the share that is bad (``confidently_wrong``) and the share that is severe, beyond the 99% quantile of the base
        (``confidently_severe``). Critics say yes or no, so the answers that they like best are all those that they
        pass, not a top tenth. None without answers.
    """
    if not judged or not base:
        return None
    passed = [one for one in judged if not one.objects]
    severe = frozen_threshold(_gold(base), 0.99)
    if not any(one.gold > severe for one in base):
        severe = math.nan  # a score that only says yes or no has nothing beyond its worst
    record: Record = {
        "gold": gold,
        "n": len(judged),
        "sqrt_kl": None if kl is None else math.sqrt(max(kl, 0.0)),
        "objections": rate(*_of(judged, [one.objects for one in judged])),
        "n_passed": len(passed),
        "bad_beyond": bad_beyond,
        "severe_beyond": None if math.isnan(severe) else severe,
        "confidently_wrong": rate(*_of(passed, [one.gold > bad_beyond for one in passed])),
    }
    if not math.isnan(severe):
        record["confidently_severe"] = rate(*_of(passed, [one.gold > severe for one in passed]))
        record["severe"] = rate(*_of(judged, [one.gold > severe for one in judged]))
    record["bad"] = rate(*_of(judged, [one.gold > bad_beyond for one in judged]))
    now, then = _aligned(judged, base)
    for quantity in QUANTITIES:
        record[f"gold.{quantity}"] = flat(estimate(_gold(judged), quantity), len(judged))
        record[f"gold.{quantity}.change"] = flat(change(_gold(then), _gold(now), quantity), len(now))
    objected = [as_panel(*_of(one, [answer.objects for answer in one])) for one in (then, now)]
    record["objections.change"] = flat(change(objected[0], objected[1], "mean"), len(now))
    record["apart"] = _apart(record)
    return record


def _of(judged: Sequence[Judged], flags: Sequence[bool]) -> tuple[list[str], Sequence[bool]]:
    return [one.prompt_id for one in judged], flags


def _gold(judged: Sequence[Judged]) -> np.ndarray:
    return as_panel([one.prompt_id for one in judged], [one.gold for one in judged])


def _aligned(judged: Sequence[Judged], base: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """The answers of both to the prompts that both have."""
    both = {one.prompt_id for one in judged} & {one.prompt_id for one in base}
    return [one for one in judged if one.prompt_id in both], [one for one in base if one.prompt_id in both]


def _apart(record: Mapping[str, Any]) -> str | None:
    """Where proxy and gold diverge: the critic objects to less, beyond its interval, and gold there is worse."""
    fewer = record["objections.change"]["high"]
    if fewer is None or fewer >= 0:
        return None
    parted = [name for name in QUANTITIES if _is_worse(record[f"gold.{name}.change"])]
    return " and ".join("at the mean" if name == "mean" else "at the tail" for name in parted) or None


def _is_worse(cell: Mapping[str, Any]) -> bool:
    return cell["value"] is not None and cell["value"] > 0


def proxy_report(records: Sequence[tuple[int, Mapping[str, Any]]], panel: Mapping[int, Mapping[str, Any]]) -> str:
    """The table of a run.

    Args:
        records: of the policies, each with the round that trained it.
        panel: by round, the gold score on the first probe set (``mean``, ``cvar_1pct``), which is the larger sample,
            and ``kl``; also for rounds whose policy no critic has met yet.
    """
    if not records:
        return ""
    gold = records[0][1]["gold"]
    lines = [
        f"  proxy and gold ({gold})",
        f"  {'policy of':<10}{'sqrt KL':>8}  {'critic objects':<22}{'gold mean':>10}{'CVaR 1%':>9}"
        f"  {'bad though passed':<22}{'severe though passed':<22}{'panel: mean':>12}{'CVaR 1%':>9}",
    ]
    by_round = dict(records)
    for round_ in sorted({*by_round, *panel}):
        own, seen = by_round.get(round_), panel.get(round_, {})
        cells = [f"  round {round_:<4}"]
        if own is None:
            cells.append(f"{_root(seen.get('kl')):>8}  {'(no critic has met it)':<22}{'':>19}  {'':<22}{'':<22}")
        else:
            wrong, severe = own["confidently_wrong"], own.get("confidently_severe")
            cells.append(f"{_value(own['sqrt_kl']):>8}  {_share(own['objections'], own['objections.change']):<22}")
            cells.append(f"{_moved(own, 'mean'):>10}{_moved(own, 'cvar_1pct'):>9}")
            cells.append(f"  {_share(wrong):<22}{_share(severe) if severe else '-':<22}")
        cells.append(f"{_value(seen.get('mean')):>12}{_value(seen.get('cvar_1pct')):>9}")
        if own is not None and own["apart"]:
            cells.append(f"  apart {own['apart']}")
        lines.append("".join(cells).rstrip())
    return "\n".join(lines)


def _root(kl: float | None) -> str:
    return _value(None if kl is None else math.sqrt(max(kl, 0.0)))


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _moved(record: Mapping[str, Any], quantity: str) -> str:
    return _value(record[f"gold.{quantity}"]["value"]) + _star(record[f"gold.{quantity}.change"])


def _star(changed: Mapping[str, Any] | None) -> str:
    if changed is None or changed["value"] is None:
        return " "
    low, high = changed["low"], changed["high"]
    return "*" if (low is not None and low > 0) or (high is not None and high < 0) else " "


def _share(cell: Mapping[str, Any], changed: Mapping[str, Any] | None = None) -> str:
    if cell["value"] is None:
        return "-"
    return f"{cell['value']:.1%}{_star(changed)} [{cell['low']:.1%}, {cell['high']:.1%}]"
