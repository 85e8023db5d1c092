"""The critic's own errors in a round: false alarms, misses, what rewrites did, and errors shared with the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.report.panels import as_panel
from pipeline.scorers.critic import Truth, finds_fault
from pipeline.tails import Agreement, Estimate, estimate, finite_record, kappa, phi

Row = Mapping[str, Any]
Record = dict[str, Any]
TruthOf = Callable[[Row, str], Truth | None]
"""The truth of a row of refinements, given the text that its rewrite left; None where it is not known."""


class Finding(NamedTuple):
    """One critique and the truth about it; ``objects`` is what the critic said."""

    prompt_id: str
    sample: int
    revision_index: int
    slice: str
    principle_id: str
    objects: bool
    truth: Truth


def findings_of(rows: Iterable[Row], truth_of: TruthOf, keep_dropped: Sequence[str] = ()) -> tuple[list[Finding], int]:
    """The critiques whose truth is known, and how many others there are, including those that failed.

    Args:
        rows: rows of a table of refinements; those for which no critique was requested are left out.
        truth_of: gives the truth about a row, given the text that the row leaves.
        keep_dropped: drop reasons whose revisions count anyway, as in the recipe.
    """
    found, unknown = [], 0
    for row in rows:
        if row["critique"] is None:
            continue
        truth = known_truth(row, truth_of, keep_dropped)
        if truth is None:
            unknown += 1
            continue
        pass_ = (row["prompt_id"], row["sample"], row["revision_index"])
        found.append(Finding(*pass_, row["slice"], row["principle_id"], finds_fault(row["critique"]), truth))
    return found, unknown


def known_truth(row: Row, truth_of: TruthOf, keep_dropped: Sequence[str]) -> Truth | None:
    """The truth of a row of refinements that has a critique in words, where it is known."""
    return truth_of(row, text_after(row, keep_dropped)) if is_criticised(row) else None


def is_criticised(row: Row) -> bool:
    """Whether a row of refinements has a critique in words."""
    return row["critique"] is not None and any(character.isalnum() for character in row["critique"])


def text_after(row: Row, keep_dropped: Sequence[str]) -> str:
    """The text that a row of refinements leaves: its revision, or the answer where the revision was dropped."""
    taken = row["drop_reason"] is None or row["drop_reason"] in keep_dropped
    return str(row["revision"] if taken else row["response"])


def critic_cells(findings: Sequence[Finding]) -> list[Record]:
    """Rates of a critic's errors and of what rewrites did, over all principles (``principle`` is None) and for each.

    * ``false_alarm``: the share of critiques of answers without a fault that object.
    * ``miss``: the share of critiques of answers with a fault that do not object.
    * ``changed_innocent``, ``lost_content``, ``made_worse``: the share of answers without a fault whose rewrite is
      another text, lacks content, or is worse (``scorers/critic.py`` says how that is known); the last two among
      answers for which it is known.
    * ``not_mended``: the share of answers with a fault whose rewrite still has it.
    """
    cells = []
    for principle in [None, *sorted({one.principle_id for one in findings})]:
        own = [one for one in findings if principle in (None, one.principle_id)]
        innocent = [one for one in own if not one.truth.faulty]
        faulty = [one for one in own if one.truth.faulty]
        rewritten = [one for one in innocent if one.truth.lost is not None and one.truth.worse is not None]
        rates: dict[str, tuple[Sequence[Finding], list[bool]]] = {
            "false_alarm": (innocent, [one.objects for one in innocent]),
            "miss": (faulty, [not one.objects for one in faulty]),
            "changed_innocent": (innocent, [one.truth.changed for one in innocent]),
            "lost_content": (rewritten, [bool(one.truth.lost) for one in rewritten]),
            "made_worse": (rewritten, [bool(one.truth.worse) for one in rewritten]),
        }
        if all(one.truth.mended is not None for one in faulty):
            rates["not_mended"] = (faulty, [not one.truth.mended for one in faulty])
        for name, (of, flags) in rates.items():
            cells.append({"principle": principle, "rate": name, **rate([one.prompt_id for one in of], flags)})
    return cells


def rate(prompt_ids: Sequence[str], flags: Sequence[bool]) -> Record:
    """A share with its 95% interval, prompts as the unit; ``n`` counts the flags."""
    return flat(estimate(as_panel(prompt_ids, flags), "exceedance", threshold=0.5), len(flags))


def flat(found: Estimate, n: int) -> Record:
    """An estimate for JSON."""
    kept = {"value": found.value, "low": found.low, "high": found.high, "why": found.why}
    return finite_record({**kept, "n": n, "n_prompts": found.n_prompts})


class Chain(NamedTuple):
    """One answer of a round on its way through the rewrites: whether it is bad, and whether their result still is."""

    slice: str
    bad: bool
    came_through: bool


def chains_of(
    rows: Sequence[Row], is_bad: Callable[[Row, str], bool | None], keep_dropped: Sequence[str] = ()
) -> dict[tuple[str, int], Chain]:
    """For each first answer whether it is bad, and whether it still is after all passes; only where that is known."""
    by_answer: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if is_criticised(row):
            by_answer.setdefault((row["prompt_id"], row["sample"]), []).append(row)
    found = {}
    for key, passes in by_answer.items():
        first, last = min(passes, key=_place), max(passes, key=_place)
        bad, after = is_bad(first, first["response"]), is_bad(last, text_after(last, keep_dropped))
        if bad is not None:
            found[key] = Chain(first["slice"], bad, bad and after is not False)
    return found


def _place(row: Row) -> int:
    return int(row["revision_index"])


def shared_blind_spots(
    before: Mapping[tuple[str, int], Chain], now: Mapping[tuple[str, int], Chain], seed: int
) -> Record | None:
    """Whether the policy repeats exactly those faults that got past the critic a round ago.

    Over the prompts whose answer was bad a round ago: phi and kappa between "it came through critique and rewrite" and
    "the next policy's answer is bad again". Near 1, what the critic does not see is what the policy keeps doing; near
    0, the policy's faults have other causes. Also, by family, the rates behind them.

    Returns:
        None where no answer was bad.
    """
    keys = [key for key, chain in before.items() if chain.bad and key in now]
    if not keys:
        return None
    through = [before[key].came_through for key in keys]
    again = [now[key].bad for key in keys]
    prompt_ids = [prompt_id for prompt_id, _ in keys]
    families = []
    for name in sorted({before[key].slice for key in keys}):
        own = [key for key in keys if before[key].slice == name]
        families.append(
            {
                "slice": name,
                "n_bad_before": len(own),
                "came_through": sum(before[key].came_through for key in own) / len(own),
                "bad_again": sum(now[key].bad for key in own) / len(own),
            }
        )
    return {
        "n": len(keys),
        "n_came_through": sum(through),
        "n_bad_again": sum(again),
        "phi": _coefficient(phi(through, again, groups=prompt_ids, seed=seed)),
        "kappa": _coefficient(kappa(through, again, groups=prompt_ids, seed=seed)),
        "families": families,
    }


def shared_errors(one: Sequence[Finding], other: Sequence[Finding], seed: int) -> Record | None:
    """Whether two critics, or one in two rounds, err on the same labelled answers.

    Cohen's kappa of their errors: 1 where they err on the same answers, 0 where they coincide only by chance. Two
    critics that both object too readily agree on that without sharing a blind spot, so kappa is also given within the
    answers without a fault and within those with one: there, only what is specific to an answer counts.

    Returns:
        None where they have no answer in common.
    """
    first, second = _errors(one), _errors(other)
    both = [key for key in second if key in first]
    if not both:
        return None
    faulty = {(finding.prompt_id, finding.principle_id): finding.truth.faulty for finding in one}
    of = {
        "kappa": both,
        "kappa_without_fault": [key for key in both if not faulty[key]],
        "kappa_with_fault": [key for key in both if faulty[key]],
    }
    coefficients = {
        name: _coefficient(
            kappa([first[k] for k in keys], [second[k] for k in keys], groups=[k[0] for k in keys], seed=seed)
        )
        for name, keys in of.items()
    }
    return {
        "n": len(both),
        "n_errors": [sum(errors[key] for key in both) for errors in (first, second)],
        "n_both_err": sum(first[key] and second[key] for key in both),
        **coefficients,
    }


def _errors(findings: Sequence[Finding]) -> dict[tuple[str, str], bool]:
    return {(one.prompt_id, one.principle_id): one.objects != one.truth.faulty for one in findings}


def _coefficient(found: Agreement) -> Record:
    return finite_record(found._asdict())
