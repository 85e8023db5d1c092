"""How common loops, fragments, boilerplate and the like are in a round's training data and in its policy's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report.boilerplate import in_words, rising_phrases
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
    shapes: list[dict[str, Any]] = []
    flags = {id(rows): [_kinds(row) for row in rows] for rows in (trained, *answers)}
    for kind in KINDS:
        of = [_by_prompt(rows, [one[kind] for one in flags[id(rows)]]) for rows in (trained, *answers)]
        shapes.append({"kind": kind, **_shares(*of)})
    texts = [{(row["prompt_id"], row["sample"]): str(row["text"]) for row in rows} for rows in answers]
    boilerplate = []
    said = {id(rows): [in_words(str(row["text"])) for row in rows] for rows in (trained, *answers)}
    for phrase in rising_phrases(*texts):
        of = [
            _by_prompt(rows, [f" {phrase.text} " in text for text in said[id(rows)]]) for rows in (trained, *answers)
        ]
        boilerplate.append({"phrase": phrase.text, "p_value": phrase.p_value, **_shares(*of)})
    return counts | {"kinds": shapes, "boilerplate": boilerplate}


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


def _shares(trained: np.ndarray, before: np.ndarray, after: np.ndarray) -> Row:
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


def _by_prompt(rows: Sequence[Row], flags: Sequence[bool]) -> np.ndarray:
    """Flags as [n_prompts, k], NaN where a prompt has fewer."""
    of_prompt: dict[str, list[bool]] = {}
    for row, flag in zip(rows, flags, strict=True):
        of_prompt.setdefault(row["prompt_id"], []).append(flag)
    found = np.full((len(of_prompt), max(map(len, of_prompt.values()), default=1)), np.nan)
    for i, values in enumerate(of_prompt.values()):
        found[i, : len(values)] = values
    return found


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
