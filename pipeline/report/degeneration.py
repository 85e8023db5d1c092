"""How common loops, fragments, boilerplate and the like are in a round's training data and in its policy's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report.boilerplate import in_words, rising_phrases
from pipeline.report.panels import as_panel
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table
from pipeline.scorers.degeneration import KINDS, degenerations
from pipeline.tails import finite_record
from pipeline.tails.amplification import share_ratio

Row = dict[str, Any]

_PHRASES = 3
"""So many of the phrases that rose are shown on the terminal."""


def degeneration_table(run: RunDir, round_: int, probe_set: str) -> dict[str, Any]:
    """Shares in what round ``round_`` trained on, in its policy's answers to a probe set, and in round 0's answers.

    ``amplification`` is the share in the answers over the share in the training data, with a 95% interval: above 1
    the policy does it more than it was taught to. This assumes that the probe set's prompts are like the training
    prompts. ``boilerplate`` lists phrases that became more common in the answers since round 0, on the same prompts.
    It and ``kinds`` are empty where one of the three has no texts.
    """
    trained = _training_rows(run, round_)
    answers = [_answers(run, r, probe_set) for r in (0, round_)]
    counts = {"round": round_, "probe_set": probe_set, "training_rows": len(trained), "answers": len(answers[1])}
    if not all((trained, *answers)):
        return counts | {"kinds": [], "boilerplate": []}
    groups = (trained, *answers)
    seen = [[_kinds(row) for row in rows] for rows in groups]
    kinds = [
        {"kind": kind, **_shares(groups, [[one[kind] for one in of_group] for of_group in seen])} for kind in KINDS
    ]
    texts = [{(row["prompt_id"], row["sample"]): str(row["text"]) for row in rows} for rows in answers]
    said = [[in_words(str(row["text"])) for row in rows] for rows in groups]
    boilerplate = [
        {
            "phrase": phrase.text,
            "p_value": phrase.p_value,
            **_shares(groups, [[f" {phrase.text} " in text for text in of_group] for of_group in said]),
        }
        for phrase in rising_phrases(*texts)
    ]
    return counts | {"kinds": kinds, "boilerplate": boilerplate}


def degeneration_report(table: Mapping[str, Any]) -> str:
    """The table on the terminal: what occurs at all, and the phrases that rose most."""
    seen = [
        ({"name": one["kind"].replace("_", " "), **one}) for one in table["kinds"] if one["trained"] or one["answers"]
    ]
    seen += [{"name": f"“{one['phrase']}”", **one} for one in table["boilerplate"][:_PHRASES]]
    if not seen:
        return "  degeneration: none, in training data or answers"
    lines = [f"  {'degeneration':<40}{'trained on':>11}{'answers':>9}{'round 0':>9}   amplification"]
    for one in seen:
        name = one["name"] if len(one["name"]) < 40 else f"{one['name'][:37]}…”"
        lines.append(
            f"    {name:<38}{one['trained']:>11.1%}{one['answers']:>9.1%}{one['round_0']:>9.1%}   "
            f"{_factor(one['amplification'])} [{_factor(one['low'])}, {_factor(one['high'])}]"
        )
    if len(table["boilerplate"]) > _PHRASES:
        lines.append(f"    and {len(table['boilerplate']) - _PHRASES} more phrases that rose, in degeneration.json")
    return "\n".join(lines)


def _factor(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3g}"


def _shares(groups: Sequence[Sequence[Row]], flags: Sequence[Sequence[bool]]) -> Row:
    """Shares of flagged rows in what was trained on, in round 0's answers, and in the round's."""
    trained, before, after = (
        as_panel([row["prompt_id"] for row in rows], of_rows) for rows, of_rows in zip(groups, flags, strict=True)
    )
    ratio = share_ratio(trained, after)
    return finite_record(
        {
            "trained": ratio.before,
            "answers": ratio.after,
            "round_0": float(np.nanmean(before)),
            "amplification": ratio.value,
            "low": ratio.low,
            "high": ratio.high,
        }
    )


def _kinds(row: Row) -> dict[str, bool]:
    prompt = row["prompt"][-1]["content"] if row["prompt"] else ""
    return degenerations(prompt, row["text"], row["finish_reason"])


def _training_rows(run: RunDir, round_: int) -> list[Row]:
    columns = ["prompt_id", "sample", "round", "prompt", "completion", "source"]
    rows = read_table(run.stage_dir(round_, "distill") / "train.parquet", columns).to_pylist()
    ended = {
        (r, row["prompt_id"], row["sample"]): row["finish_reason"]
        for r in {row["round"] for row in rows if row["source"] != "helpful"}
        for row in _finals(run, r)
    }
    return [
        {
            "prompt_id": row["prompt_id"],
            "sample": row["sample"],
            "prompt": row["prompt"],
            "text": row["completion"][-1]["content"],
            "finish_reason": ended.get((row["round"], row["prompt_id"], row["sample"]), "stop"),
        }
        for row in rows
    ]


def _finals(run: RunDir, round_: int) -> list[Row]:
    columns = ["prompt_id", "sample", "finish_reason", "final"]
    rows = read_table(run.stage_dir(round_, "refine") / "refinements.parquet", columns).to_pylist()
    return [row for row in rows if row["final"] is not None]


def _answers(run: RunDir, round_: int, probe_set: str) -> list[Row]:
    columns = ["prompt_id", "sample", "probe_set", "prompt", "response", "finish_reason", "drop_reason"]
    rows = read_table(run.stage_dir(round_, "measure") / "samples.parquet", columns).to_pylist()
    return [
        row | {"text": row["response"]}
        for row in rows
        if row["probe_set"] == probe_set and row["drop_reason"] in (None, "empty")
    ]
