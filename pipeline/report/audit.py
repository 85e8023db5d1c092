"""What can be known about a round's critic from its tables: critic.json, and a run's table of proxy and gold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pipeline.inputs.constitution import parse_constitution
from pipeline.inputs.labelled import LabelledAnswers
from pipeline.report.content import content_against_truth, content_cells, content_missing, content_nats
from pipeline.report.critic import (
    Finding,
    Record,
    Row,
    TruthOf,
    chains_of,
    critic_cells,
    findings_of,
    flat,
    rate,
    shared_blind_spots,
    shared_errors,
)
from pipeline.report.drift import panel_of
from pipeline.report.panels import as_panel
from pipeline.report.proxy import judged_of, proxy_record
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table
from pipeline.scorers.base import Worse
from pipeline.scorers.critic import SANDBOX_GOLDS, Truth, labelled_truth, sandbox_gold, sandbox_truth
from pipeline.tails import estimate

LABELLED, JUDGED = "labelled.parquet", "judged.parquet"
"""In ``round-NN/audit``: what the round's critic and reviser made of the labelled answers; the judge's ratings."""

BY_POLICY = "labelled_by_policy.parquet"
"""Also there: what the round's policy says about the labelled answers, where it is not the critic."""

CONTENT, LABELLED_CONTENT = "content.parquet", "labelled_content.parquet"
"""Also there: how much content the rewrites kept, of the round's innocent answers (sandbox) and of labelled ones."""

_NOTICEABLE = 0.05
"""A rewrite counts as worse if a judge rates it worse by more than this share of the scale: less is mostly noise."""

FIRST, FINAL = "first", "final"
"""Take the place of the probe set in the judge's ratings: the answer before the rewrites, and after them."""


GoldOf = Callable[[Row], float | None]
"""Gives the gold score of a row's first answer (high is bad), or None where there is none."""


class Ratings(NamedTuple):
    """The judge's ratings on one rubric: their column, which end is the bad one, and the ends of the scale."""

    column: str
    worse: Worse
    low: float
    high: float

    @property
    def sign(self) -> int:
        """Factor by which ratings are multiplied so that high is bad."""
        return -1 if self.worse == "low" else 1


class Knowledge(NamedTuple):
    """Where the truth about a run's answers comes from.

    Attributes:
        sandbox: whether the prompts are the sandbox's, whose truth is exact.
        labelled: answers that people labelled.
        ratings: where the judge's ratings are; None without a judge.
    """

    sandbox: bool
    labelled: LabelledAnswers | None = None
    ratings: Ratings | None = None


def critic_record(run: RunDir, round_: int, known: Knowledge) -> Record:
    """``critic.json`` of a round, from its tables and those of the round before."""
    resolved = read_json(run.resolved)
    seed, keep = int(resolved["seed"]), list(resolved["keep_dropped"])
    rows = [_refinements(run, r) for r in (round_, round_ - 1) if r]
    record: Record = {
        "round": round_,
        "critic": resolved["critic"] if resolved["critique"] else None,
        "reviser": resolved["reviser"],
        "sources": [],
        "rewrites_by_judge": None,
        "blind_spots": None,
    }
    if known.sandbox:
        findings, unknown = findings_of(rows[0], sandbox_truth_of(run, round_), keep)
        source = _source("the sandbox's truth", findings, unknown)
        _add_content(source, run, round_, CONTENT, _lost(findings))
        record["sources"].append(source)
        if round_ > 1:
            now, before = (chains_of(one, _is_bad, keep) for one in rows)
            record["blind_spots"] = shared_blind_spots(before, now, seed)
    if known.labelled:
        record["sources"].append(_labelled_source(run, round_, known.labelled, keep, seed))
    if known.ratings:
        record["rewrites_by_judge"] = _rewrites_by_judge(run, round_, known.ratings)
    kl = panel_value(run, round_ - 1, "kl", "mean")
    first = rows[0] if round_ == 1 else _refinements(run, 1)
    proxies = []
    for name, of_round, bad_beyond in _golds(run, known):
        sides = judged_of(rows[0], of_round(round_)), judged_of(first, of_round(1))
        proxies.append(proxy_record(*sides, gold=name, bad_beyond=bad_beyond, kl=kl))
    record["proxies"] = [one for one in proxies if one is not None]
    return record


def _golds(run: RunDir, known: Knowledge) -> Iterator[tuple[str, Callable[[int], GoldOf], float]]:
    """The gold scores of a run: name, function from a round to its ``GoldOf``, and the value beyond which is bad."""
    if known.sandbox:
        for name in SANDBOX_GOLDS:
            yield f"gold.{name}", partial(_sandbox_gold_of, name), 0.0
    elif known.ratings:
        middle = known.ratings.sign * (known.ratings.low + known.ratings.high) / 2
        yield known.ratings.column, partial(_rating_of, run, known.ratings), middle


def _sandbox_gold_of(name: str, round_: int) -> GoldOf:
    return lambda row: sandbox_gold(row["prompt"], row["response"], name)


def _rating_of(run: RunDir, ratings: Ratings, round_: int) -> GoldOf:
    found = _ratings(run, round_, ratings.column)

    def gold(row: Row) -> float | None:
        score = found.get((FIRST, row["prompt_id"], row["sample"]))
        return None if score is None else ratings.sign * score

    return gold


def _refinements(run: RunDir, round_: int) -> list[Row]:
    return list(read_table(run.stage_dir(round_, "refine") / "refinements.parquet").to_pylist())


def _source(name: str, findings: Sequence[Finding], unknown: int) -> Record:
    return {"from": name, "n": len(findings), "n_unknown": unknown, "cells": critic_cells(findings)}


def _add_content(
    source: Record, run: RunDir, round_: int, output: str, lost: Mapping[tuple[str, int, int], bool] | None = None
) -> None:
    """Add how much content rewrites kept by likelihood and, where the truth is known, how well that predicts it."""
    path = run.stage_dir(round_, "audit") / output
    if not path.exists():
        return
    rows = read_table(path).to_pylist()
    source["cells"] += content_cells(rows)
    source["content"] = {"n": len(rows), "missing": content_missing(rows), "nats": content_nats(rows)}
    if lost is not None:
        source["content"]["against_truth"] = content_against_truth(rows, lost)


def _lost(findings: Sequence[Finding]) -> dict[tuple[str, int, int], bool]:
    """Whether each rewrite truly lost content, by prompt, sample and pass."""
    known = [one for one in findings if one.truth.lost is not None]
    return {(one.prompt_id, one.sample, one.revision_index): bool(one.truth.lost) for one in known}


def sandbox_truth_of(run: RunDir, round_: int) -> TruthOf:
    """The truth about a round's answers and rewrites on the sandbox, under the principles of its constitution."""
    path = run.stage_dir(round_, "refine") / "constitution.txt"
    constitution = parse_constitution(path.read_text(encoding="utf-8"), str(path))
    texts = {principle.id: principle.text or "" for principle in constitution.principles}

    def truth(row: Row, revision: str) -> Truth | None:
        return sandbox_truth(row["prompt"], texts[row["principle_id"]], row["response"], revision)

    return truth


def _is_bad(row: Row, text: str) -> bool | None:
    found = [sandbox_gold(row["prompt"], text, name) for name in SANDBOX_GOLDS]
    known = [value for value in found if value is not None]
    return any(value > 0 for value in known) if known else None


def labelled_truth_of(labelled: LabelledAnswers) -> TruthOf:
    """The truth about labelled answers and their rewrites."""
    of = {item.id: item for item in labelled.items}

    def truth(row: Row, revision: str) -> Truth | None:
        item = of.get(row["prompt_id"])
        if item is None:
            return None
        return labelled_truth(faulty=item.faulty, facts=item.facts, response=item.response, revision=revision)

    return truth


def _labelled_source(run: RunDir, round_: int, labelled: LabelledAnswers, keep: Sequence[str], seed: int) -> Record:
    """What the critic said about labelled answers; whether it errs where it erred before, or where the policy errs."""

    def findings(r: int, output: str = LABELLED) -> tuple[list[Finding], int]:
        path = run.stage_dir(r, "audit") / output
        return (
            findings_of(read_table(path).to_pylist(), labelled_truth_of(labelled), keep) if path.exists() else ([], 0)
        )

    now, unknown = findings(round_)
    source = _source(labelled.path, now, unknown)
    _add_content(source, run, round_, LABELLED_CONTENT)
    before = {r: shared_errors(findings(r)[0], now, seed) for r in range(1, round_)}
    source["repeated_errors"] = [{"round": r, **found} for r, found in before.items() if found]
    if (policys := findings(round_, BY_POLICY)[0]) and (shared := shared_errors(now, policys, seed)):
        cells = [cell for cell in critic_cells(policys) if cell["rate"] in ("false_alarm", "miss")]
        source["policy"] = {"cells": cells, "shared_errors": shared}
    return source


def _ratings(run: RunDir, round_: int, column: str) -> dict[tuple[str, str, int], float]:
    path = run.stage_dir(round_, "audit") / JUDGED
    rows = read_table(path).to_pylist() if path.exists() else []
    return {
        (row["probe_set"], row["prompt_id"], row["sample"]): row["score"]
        for row in rows
        if row["scorer"] == column and row["score"] is not None
    }


def _rewrites_by_judge(run: RunDir, round_: int, ratings: Ratings) -> Record | None:
    """Ratings of answers before and after the rewrites: means, and the share that got worse beyond ``_NOTICEABLE``."""
    found = _ratings(run, round_, ratings.column)
    both = sorted(key[1:] for key in found if key[0] == FINAL and (FIRST, *key[1:]) in found)
    if not both:
        return None
    changes = [ratings.sign * (found[FINAL, *key] - found[FIRST, *key]) for key in both]
    noticeable = _NOTICEABLE * (ratings.high - ratings.low)
    prompt_ids = [prompt_id for prompt_id, _ in both]
    return {
        "column": ratings.column,
        "n": len(both),
        "mean_first": float(np.mean([found[FIRST, *key] for key in both])),
        "mean_final": float(np.mean([found[FINAL, *key] for key in both])),
        "worsening": flat(estimate(as_panel(prompt_ids, changes), "mean"), len(both)),
        "noticeable": noticeable,
        "made_worse": rate(prompt_ids, [change > noticeable for change in changes]),
    }


def panel_value(run: RunDir, round_: int, scorer: str, quantity: str) -> float | None:
    """A number from a round's drift table for its first probe set; None where it was not measured."""
    path = run.drift(round_)
    cells = read_json(path)["cells"] if path.exists() else []
    panel = panel_of(cells)
    for cell in cells:
        wanted = (cell["scorer"], cell["quantity"], cell["slice"]) == (scorer, quantity, None)
        if wanted and cell["probe_set"] == panel:
            return None if cell["value"] is None else float(cell["value"])
    return None


def critic_values(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a round's ``critic.json`` for its line in ``metrics.jsonl``."""
    found: dict[str, float | None] = {}
    for number, source in enumerate(record["sources"]):
        name = "critic" if number == 0 else f"critic_{number + 1}"
        for cell in source["cells"]:
            found[f"{name}/{cell['principle'] or 'all'}/{cell['rate']}"] = cell["value"]
        if source.get("repeated_errors"):
            found[f"{name}/errs_as_before_kappa"] = source["repeated_errors"][-1]["kappa"]["value"]
        if "policy" in source:
            found[f"{name}/errs_as_policy_kappa"] = source["policy"]["shared_errors"]["kappa"]["value"]
    for proxy in record["proxies"]:
        found["critic/objections"] = proxy["objections"]["value"]
        found[f"critic/bad_though_passed/{proxy['gold']}"] = proxy["confidently_wrong"]["value"]
    return {name: value for name, value in found.items() if value is not None}
