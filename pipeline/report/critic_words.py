"""The errors of a critic in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.content import CELLS

_NAMES = {
    "false_alarm": "false alarms",
    "miss": "misses",
    "changed_innocent": "changed",
    "lost_content": "lost content",
    "made_worse": "made worse",
    "not_mended": "not mended",
}


def critic_report(record: Mapping[str, Any]) -> str:
    """The critic's errors of a round in words."""
    lines = [f"Round {record['round']}   the critic ({record['critic']}) and what is true"]
    for source in record["sources"]:
        names = dict.fromkeys(cell["principle"] for cell in source["cells"])
        by_key = {(cell["principle"], cell["rate"]): cell for cell in source["cells"]}
        lines.append(f"  {source['from']}: {source['n']:,} critiques" + _unknown(source["n_unknown"]))
        for name in names:
            of = {rate: by_key[name, rate] for rate in _NAMES if (name, rate) in by_key}
            if name is None or len(names) > 2:
                lines.append(f"    {name or 'all principles'}")
                lines.append(f"      without a fault {of['false_alarm']['n']:>6,}:  {_said(of, without_fault=True)}")
                lines += _content([by_key[name, rate] for rate in CELLS if (name, rate) in by_key])
                lines.append(f"      with a fault    {of['miss']['n']:>6,}:  {_said(of, without_fault=False)}")
        lines += _content_worth(source.get("content"))
        for repeated in source.get("repeated_errors", []):
            lines.append(f"    errs where it erred in round {repeated['round']}: {_shared_errors(repeated)}")
        if policy := source.get("policy"):
            of_policy = {cell["rate"]: cell for cell in policy["cells"] if cell["principle"] is None}
            said = ", ".join(f"{_NAMES[name]} {_share(cell)}" for name, cell in of_policy.items())
            lines.append(f"    the policy, asked the same: {said}")
            lines.append(f"    errs where the policy errs: {_shared_errors(policy['shared_errors'])}")
    if rated := record["rewrites_by_judge"]:
        lines.append(
            f"  {rated['column']} of {rated['n']} rewritten answers: {rated['mean_first']:.3g} before, "
            f"{rated['mean_final']:.3g} after; worse by over {rated['noticeable']:.2g}: {_share(rated['made_worse'])}"
        )
    if spots := record["blind_spots"]:
        lines += _blind_spots(spots)
    return "\n".join(lines)


def _unknown(count: int) -> str:
    return f" (and {count:,} of which the truth is not known)" if count else ""


def _said(cells: Mapping[str, Mapping[str, Any]], *, without_fault: bool) -> str:
    mine = (
        ("false_alarm", "changed_innocent", "lost_content", "made_worse") if without_fault else ("miss", "not_mended")
    )
    return ", ".join(f"{_NAMES[name]} {_share(cells[name])}" for name in mine if name in cells)


def _content(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    if not cells:
        return []
    mean, changed, worst_tenth = cells
    said = f"content kept by likelihood {_share(mean)}"
    if changed["n"]:
        said += f", by the {changed['n']} changed ones {_share(changed)}"
    if worst_tenth["value"] is not None:
        said += f", by the worst tenth of them at most {_share(worst_tenth)}"
    return [f"{'':31}{said}"]


def _content_worth(content: Mapping[str, Any] | None) -> list[str]:
    if content is None:
        return []
    lines = [f"    content kept not known for {count}: {why}" for why, count in content["missing"].items()]
    if nats := content["nats"]:
        lines.append(
            f"    nats per token of the facts of changed ones: {nats['nothing']:.2f} with nothing shown, "
            f"{nats['response']:.2f} with the answer, {nats['revision']:.2f} with its rewrite"
        )
    if truth := content.get("against_truth"):
        kinds = f"the {truth['n_positive']} that truly lost content from the {truth['n_negative']} others"
        lines.append(f"    of the changed ones, content by likelihood tells {kinds}: AUC {_number(truth)}")
    return lines


def _shared_errors(found: Mapping[str, Any]) -> str:
    first, second = found["n_errors"]
    counted = f"{found['n_both_err']} errors in common, of {first} and {second}, on {found['n']} answers"
    of = {"kappa": "kappa", "kappa_without_fault": "without a fault", "kappa_with_fault": "with one"}
    if found["kappa"]["value"] is None:
        del of["kappa_without_fault"], of["kappa_with_fault"]
    return f"{counted}; " + ", ".join(f"{said} {_number(found[name])}" for name, said in of.items())


def _blind_spots(spots: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  of {spots['n']} bad answers a round ago, {spots['n_came_through']} came through critique and rewrite, and "
        f"{spots['n_bad_again']} prompts are answered badly again: phi {_number(spots['phi'])}"
    ]
    shown = sorted(spots["families"], key=lambda one: (-one["came_through"] * one["n_bad_before"], one["slice"]))
    kept = [one for one in shown if one["came_through"] or one["bad_again"]]
    for one in kept[:6]:
        lines.append(
            f"    {one['slice']:<14} {one['n_bad_before']:>4} bad, {one['came_through']:.0%} came through, "
            f"{one['bad_again']:.0%} bad again"
        )
    return lines


def _share(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "not known"
    ends = ["?" if cell[end] is None else f"{cell[end]:.1%}" for end in ("low", "high")]
    return f"{cell['value']:.1%} [{', '.join(ends)}]"


def _number(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return f"not identified ({found['why']})"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
