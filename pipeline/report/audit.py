"""What can be known of a round's critic from its tables: critic.json, and the table of proxy and gold over a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.inputs.constitution import parse_constitution
from pipeline.inputs.labelled import LabelledAnswers
from pipeline.report.critic import (
    Record,
    Row,
    Verdict,
    chains_of,
    critic_cells,
    flat,
    repeated_errors,
    shared_blind_spots,
    verdicts_of,
)
from pipeline.report.proxy import Judged, judged_of, proxy_record
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table
from pipeline.scorers.base import Worse
from pipeline.scorers.critic import Truth, labelled_truth, sandbox_harm, sandbox_truth
from pipeline.tails import estimate

LABELLED, JUDGED = "labelled.parquet", "judged.parquet"
"""In ``round-NN/audit``: the labelled answers as the round's critic and reviser took them, and the judge's ratings."""

FIRST, FINAL = "first", "final"
"""What stands for the probe set in the judge's ratings: the answer before the rewrites, and after."""


class Knowledge(NamedTuple):
    """From what the truth of a run's answers is known.

    Attributes:
        sandbox: whether the prompts are the sandbox's, whose truth is exact.
        labelled: answers that people labelled.
        judged: column of the judge's ratings, and which end is the bad one.
        bad_beyond: ratings beyond this, towards the bad end, are bad: the middle of the rubric's scale.
    """

    sandbox: bool
    labelled: LabelledAnswers | None = None
    judged: tuple[str, Worse] | None = None
    bad_beyond: float = 0.0


def is_sandbox(resolved: Mapping[str, Any]) -> bool:
    """Whether the training prompts of a resolved recipe are the sandbox's."""
    return str(resolved["prompts"] or "sandbox:").startswith("sandbox:")


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
        truth = _sandbox_truth_of(run, round_)
        record["sources"].append(_source("the sandbox's truth", *verdicts_of(rows[0], truth, keep)))
        if round_ > 1:
            now, before = (chains_of(one, _is_harmful, keep) for one in rows)
            record["blind_spots"] = shared_blind_spots(before, now, seed)
    if known.labelled:
        tried = [_labelled_verdicts(run, r, known.labelled, keep) for r in (round_, round_ - 1) if r]
        source = _source(known.labelled.path, *tried[0])
        if round_ > 1:
            source["repeated_errors"] = repeated_errors(tried[1][0], tried[0][0], seed)
        record["sources"].append(source)
    if known.judged:
        record["rewrites_by_judge"] = _rewrites_by_judge(run, round_, known.judged)
    record["proxy"] = proxy_record(
        _judged(run, round_, known),
        _judged(run, 1, known),
        gold=known.judged[0] if known.judged and not known.sandbox else "gold.harm",
        bad_beyond=known.bad_beyond if known.judged and not known.sandbox else 0.0,
        kl=panel_value(run, round_ - 1, "kl", "mean"),
    )
    return record


def _refinements(run: RunDir, round_: int) -> list[Row]:
    return list(read_table(run.stage_dir(round_, "refine") / "refinements.parquet").to_pylist())


def _source(name: str, verdicts: Sequence[Verdict], unknown: int) -> Record:
    return {"from": name, "n": len(verdicts), "n_unknown": unknown, "cells": critic_cells(verdicts)}


def _sandbox_truth_of(run: RunDir, round_: int) -> Callable[[Row, str], Truth | None]:
    path = run.stage_dir(round_, "refine") / "constitution.txt"
    constitution = parse_constitution(path.read_text(encoding="utf-8"), str(path))
    texts = {principle.id: principle.text or "" for principle in constitution.principles}

    def truth(row: Row, revision: str) -> Truth | None:
        return sandbox_truth(row["prompt"], texts[row["principle_id"]], row["response"], revision)

    return truth


def _is_harmful(row: Row, text: str) -> bool | None:
    harm = sandbox_harm(row["prompt"], text)
    return None if harm is None else harm > 0


def _labelled_verdicts(
    run: RunDir, round_: int, labelled: LabelledAnswers, keep: Sequence[str]
) -> tuple[list[Verdict], int]:
    of = {item.id: item for item in labelled.items}

    def truth(row: Row, revision: str) -> Truth | None:
        item = of.get(row["prompt_id"])
        if item is None:
            return None
        return labelled_truth(faulty=item.faulty, facts=item.facts, response=item.response, revision=revision)

    return verdicts_of(read_table(run.stage_dir(round_, "audit") / LABELLED).to_pylist(), truth, keep)


def _ratings(run: RunDir, round_: int, column: str) -> dict[tuple[str, str, int], float]:
    path = run.stage_dir(round_, "audit") / JUDGED
    rows = read_table(path).to_pylist() if path.exists() else []
    return {
        (row["probe_set"], row["prompt_id"], row["sample"]): row["score"]
        for row in rows
        if row["scorer"] == column and row["score"] is not None
    }


def _rewrites_by_judge(run: RunDir, round_: int, judged: tuple[str, Worse]) -> Record | None:
    """Ratings of answers before and after the rewrites: their means, and how many got worse."""
    column, worse = judged
    found = _ratings(run, round_, column)
    both = sorted(key[1:] for key in found if key[0] == FINAL and (FIRST, *key[1:]) in found)
    if not both:
        return None
    sign = -1 if worse == "low" else 1
    changes = [sign * (found[FINAL, *key] - found[FIRST, *key]) for key in both]
    return {
        "column": column,
        "n": len(both),
        "mean_first": float(np.mean([found[FIRST, *key] for key in both])),
        "mean_final": float(np.mean([found[FINAL, *key] for key in both])),
        "worsening": flat(estimate(np.array(changes)[:, None], "mean"), len(both)),
        "share_worse": float(np.mean([change > 0 for change in changes])),
    }


def _judged(run: RunDir, round_: int, known: Knowledge) -> list[Judged]:
    """The first answers of a round's policy with the critic's verdict and their gold score."""
    if known.sandbox:
        return judged_of(_refinements(run, round_), lambda row: sandbox_harm(row["prompt"], row["response"]))
    if known.judged is None:
        return []
    found = _ratings(run, round_, known.judged[0])
    sign = -1 if known.judged[1] == "low" else 1

    def gold(row: Row) -> float | None:
        score = found.get((FIRST, row["prompt_id"], row["sample"]))
        return None if score is None else sign * score

    return judged_of(_refinements(run, round_), gold)


def panel_value(run: RunDir, round_: int, scorer: str, quantity: str) -> float | None:
    """A number of a round's drift table on its first probe set; None where it was not measured."""
    path = run.drift(round_)
    cells = read_json(path)["cells"] if path.exists() else []
    for cell in cells:
        wanted = (cell["scorer"], cell["quantity"], cell["slice"]) == (scorer, quantity, None)
        if wanted and cell["probe_set"] == cells[0]["probe_set"]:
            return None if cell["value"] is None else float(cell["value"])
    return None


def proxies_of(records: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """The proxies of critic records by the round whose policy they are of, the one before the critic's."""
    return [(record["round"] - 1, record["proxy"]) for record in records if record["proxy"]]


def panel_of(run: RunDir, rounds: Sequence[int], gold: str) -> dict[int, dict[str, float | None]]:
    """The gold score and the KL of every round on its first probe set."""
    return {
        r: {
            "mean": panel_value(run, r, gold, "mean"),
            "cvar_1pct": panel_value(run, r, gold, "cvar_1pct"),
            "kl": panel_value(run, r, "kl", "mean"),
        }
        for r in rounds
    }
