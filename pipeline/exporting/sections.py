"""What the cards of an export share: their header, tables and code blocks, and the sections that both have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.report.made_with import amendments_before, named_rounds
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir


def front(header: Mapping[str, Any]) -> list[str]:
    """The header that the Hub reads."""
    return ["---", yaml.safe_dump(dict(header), sort_keys=True, allow_unicode=True).strip(), "---", ""]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [*("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]), ""]


def fenced(text: str, language: str) -> list[str]:
    """A code block that nothing in the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.strip("\n"), fence, ""]


def constitutions(run: RunDir, round_: int) -> list[str]:
    """The constitution of the rounds up to this one, or each that they had with its rounds."""
    rounds: dict[tuple[str, str], list[int]] = {}
    for r in range(1, round_ + 1):
        refine = run.stage_dir(r, "refine")
        text = (refine / "constitution.txt").read_text(encoding="utf-8")
        rounds.setdefault((text, read_json(refine / "manifest.json")["constitution"]), []).append(r)
    lines = ["## Constitution", ""]
    for (text, digest), of in rounds.items():
        if len(rounds) > 1:
            lines += [f"The text of {named_rounds(of)}:", ""]
        lines += [*fenced(text, "text"), f"SHA-256 `{digest}`.", ""]
    return lines


def amendments(run: RunDir, round_: int) -> list[str]:
    """What was changed in the middle of the run, if anything."""
    lines = amendments_before(run, round_)
    if not lines:
        return []
    said = "Changed while the run was under way. What was trained by then was not trained again."
    return ["## Amendments", "", said, "", *fenced("\n".join(lines), "text")]
