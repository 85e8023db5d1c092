"""A run's critiques and revisions as data sets of their own: Parquet, one split per round.

``conversations`` has the columns of ``HuggingFaceH4/cai-conversation-harmless``, with one row per exchange that left a
final text to learn from; ``preferences`` has TRL's ``prompt``, ``chosen`` and ``rejected``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.inputs.constitution import Principle, parse_constitution
from pipeline.inputs.templates import Templates, dialogue_text
from pipeline.inputs.text_files import read_text
from pipeline.runs.files import read_json, read_json_lines
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import PAIRS, read_table, to_table, write_table

Row = dict[str, Any]

_MESSAGES = PAIRS.field("prompt").type

CONVERSATIONS = pa.schema(
    [
        ("init_prompt", pa.string()),
        ("init_response", pa.string()),
        ("critic_prompt", pa.string()),
        ("critic_response", pa.string()),
        ("revision_prompt", pa.string()),
        ("revision_response", pa.string()),
        ("prompt", pa.string()),
        ("messages", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
    ]
)
PREFERENCES = pa.schema([("prompt", _MESSAGES), ("chosen", _MESSAGES), ("rejected", _MESSAGES)])


def require_same_templates(run: RunDir, templates: Templates) -> None:
    """Make sure that what critic and reviser were asked can be rendered again.

    Raises:
        InputError: some round of the run used other templates.
    """
    changed = [
        change
        for amendment in read_json_lines(run.amendments)
        for change in amendment["changes"]
        if change.startswith("templates:")
    ]
    if changed or templates.sha256 != read_json(run.inputs)["templates"]:
        raise InputError(
            f"{templates.folder}: --datasets renders again what critic and reviser were asked, but these are not the "
            f"templates that {run.path} was made with{' throughout' if changed else ''}. Restore the old ones, or "
            "export without --datasets; every text is in round-*/refine/refinements.parquet."
        )


def write_data(run: RunDir, rounds: Sequence[int], templates: Templates, folder: Path) -> dict[str, dict[int, int]]:
    """Write ``conversations/round_NN.parquet`` and ``preferences/round_NN.parquet``; return row counts by round."""
    counts: dict[str, dict[int, int]] = {"conversations": {}, "preferences": {}}
    for round_ in rounds:
        refine = run.stage_dir(round_, "refine")
        path = refine / "constitution.txt"
        principles = {p.id: p for p in parse_constitution(read_text(path, "constitution"), str(path)).principles}
        exchanges = conversations(read_table(refine / "refinements.parquet").to_pylist(), principles, templates)
        pairs = read_table(refine / "pairs.parquet", PREFERENCES.names).to_pylist()
        for name, rows, schema in (
            ("conversations", exchanges, CONVERSATIONS),
            ("preferences", pairs, PREFERENCES),
        ):
            file = folder / name / f"{split_name(round_)}.parquet"
            counts[name][round_] = write_table(file, [to_table(rows, schema)], schema)
    return counts


def split_name(round_: int) -> str:
    """Name of the Hub split with a round's rows; the name of a split cannot contain a hyphen."""
    return f"round_{round_:02d}"


def conversations(refinements: Sequence[Row], principles: Mapping[str, Principle], templates: Templates) -> list[Row]:
    """Exchanges that left a final text, one row each.

    With several revisions of an answer, critique and revision are those that gave the final text, and
    ``init_response`` is the first answer.

    Args:
        refinements: rows of ``refinements.parquet``, the revisions of an answer one after another.
        principles: principles of the constitution that the round was made with, by id.
        templates: templates of the run.
    """
    found = []
    for _, group in groupby(refinements, key=lambda row: (row["prompt_id"], row["sample"])):
        chain = list(group)
        final = chain[-1]["final"]
        if final is None:
            continue
        # A later pass may have left the final text as it was; take the pass that produced it.
        made = next(row for row in reversed(chain) if row["revision"] == final != row["response"])
        found.append(_conversation(chain[0]["response"], made, principles[made["principle_id"]], templates))
    return found


def _conversation(first: str, made: Row, principle: Principle, templates: Templates) -> Row:
    prompt = dialogue_text(made["prompt"])
    said = {"prompt": prompt, "response": made["response"]}
    if made["critique"] is None:
        critic_prompt = None
        revision_prompt = templates.rewrite_without_critique(principle, **said)
    else:
        critic_prompt = templates.critique(principle, **said)
        revision_prompt = templates.rewrite(principle, **said, critique=made["critique"])
    chosen = [*made["prompt"], {"role": "assistant", "content": made["revision"]}]
    return {
        "init_prompt": prompt,
        "init_response": first,
        "critic_prompt": critic_prompt,
        "critic_response": made["critique"],
        "revision_prompt": revision_prompt,
        "revision_response": made["revision"],
        "prompt": prompt,
        "messages": chosen,
        "chosen": chosen,
        "rejected": [*made["prompt"], {"role": "assistant", "content": first}],
    }
