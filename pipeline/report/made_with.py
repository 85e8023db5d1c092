"""What a round was made with, from the records of its run, and how cards say it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.inputs.addresses import is_address, read_addresses
from pipeline.inputs.launch import precision
from pipeline.inputs.model import is_other_model, resolve_model, split_revision
from pipeline.runs.files import read_json, read_json_lines
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table

Record = dict[str, Any]

_CHANGED = re.compile(r"(?P<name>\w+): (?P<old>.*) -> (?P<new>.*)", re.DOTALL)
_NO_FIELD = "(no such field)"
_OF_A_DIFF = ("-", "+", "@")
_NAMELESS = ("another model", "a model on a server")


def undone(resolved: Mapping[str, Any], amendments: Sequence[Mapping[str, Any]]) -> Record:
    """A resolved recipe as it was before its latest amendments, given in the order of their time."""
    before = dict(resolved)
    for amendment in reversed(amendments):
        for changed in map(_CHANGED.fullmatch, amendment["changes"]):
            if changed and changed["name"] in before:
                if changed["old"] == _NO_FIELD:
                    del before[changed["name"]]
                else:
                    before[changed["name"]] = json.loads(changed["old"])
    return before


def recipe_of(run: RunDir, round_: int) -> Record:
    """The resolved recipe that a round was made with: today's, without what was amended after it.

    An amendment in the middle of a round counts as made before it, though stages that were complete stayed as they
    were.
    """
    return undone(
        read_json(run.resolved), [one for one in read_json_lines(run.amendments) if one["after_round"] >= round_]
    )


def amendments_before(run: RunDir, round_: int) -> list[str]:
    """The amendments that a round was made with, a line for each and for each thing that it changed.

    A value that holds a path is left out: where things lie is their owner's business.
    """
    lines = []
    for one in read_json_lines(run.amendments):
        if one["after_round"] < round_:
            when = f"after round {one['after_round']}" if one["after_round"] >= 0 else "before round 0 was complete"
            lines.append(f"{when}: {' '.join(one['reason'].split())}")
            lines += dict.fromkeys(f"  {_change(line)}" for line in one["changes"])
    return lines


def _change(line: str) -> str:
    if line.startswith(_OF_A_DIFF):
        return "constitution: the text changed"
    name, _, what = line.partition(": ") if _CHANGED.fullmatch(line) else line.rpartition(": ")
    if "/" in name:
        name = name.partition(".")[0]
    is_path = "/" in what or "\\" in what
    return f"{name}: {'changed' if is_path else what}"


def way_of_revising(recipe: Mapping[str, Any]) -> str:
    """How answers were revised, such as ``criticised and rewritten by the model itself``; names no folder or host."""
    critic, reviser = (_speaker(recipe[role], recipe["model_name_or_path"]) for role in ("critic", "reviser"))
    passes = f", in {recipe['num_revisions']} passes" if recipe["num_revisions"] > 1 else ""
    if not recipe["critique"]:
        return f"rewritten by {reviser} from principles alone, without critiques{passes}"
    if critic != reviser:
        return f"criticised by {critic} and rewritten by {reviser}{passes}"
    if critic in _NAMELESS and recipe["critic"] != recipe["reviser"]:
        return f"criticised by {critic} and rewritten by a third model{passes}"
    return f"criticised and rewritten by {critic}{passes}"


def _speaker(role: str, base: str) -> str:
    if role == "policy":
        return "the model itself"
    if role == "base" or (is_other_model(role) and resolve_model(role) == resolve_model(base)):
        return "the untrained base"
    if is_address(role):
        name = as_hub_id(read_addresses(role)[0].model or "")
        return f"`{name}` on a server" if name else "a model on a server"
    name, revision = split_revision(role, "critic or reviser")
    if not as_hub_id(name):
        return "another model"
    return f"`{name}` at `{revision}`" if revision else f"`{name}`"


def as_hub_id(base: str) -> str | None:
    """The base if it is a Hub id; None for a folder, which the Hub refuses as ``base_model`` of a card."""
    return base if re.fullmatch(r"\w[\w.-]*/[\w.-]+", base) and not Path(base).exists() else None


def precision_of(engine: Mapping[str, Any]) -> str | None:
    """The precision of the base in words, from the engine in a manifest; None behind a server, which does not say."""
    return precision(engine["dtype"], engine.get("quantization")) if "dtype" in engine else None


def trained_on(run: RunDir, round_: int) -> str:
    """The training rows of a round by source, and of which rounds they are if not only of its own."""
    distill = run.stage_dir(round_, "distill")
    rounds = sorted(set(read_table(distill / "train.parquet", ["round"])["round"].to_pylist()))
    of = f" ({named_rounds(rounds)})" if rounds != [round_] else ""
    sources = read_json(distill / "manifest.json")["sources"]
    if not is_revised(run, round_):
        sources = {"unrevised" if name == "revision" else name: count for name, count in sources.items()}
    return counted(sources) + of


def left_out(run: RunDir, round_: int) -> str:
    """The revisions of a round that were dropped, by reason, and those that were kept in spite of one."""
    manifest = read_json(run.stage_dir(round_, "refine") / "manifest.json")
    dropped = counted(manifest["dropped"]["refinements.parquet"])
    kept = manifest.get("kept", {}).get("refinements.parquet")
    return f"{dropped}; kept all the same: {counted(kept)}" if kept else dropped


def is_revised(run: RunDir, round_: int) -> bool:
    """Whether a round's answers were revised; those of the placebo arm are not."""
    return read_json(run.stage_dir(round_, "refine") / "manifest.json")["constitution"] is not None


def counted(counts: Mapping[str, int]) -> str:
    """``800 revision, 1,200 helpful``, or ``none``."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def told_by_round(facts: Mapping[int, str]) -> str:
    """``In each round, this.``, or ``In round 1, this. In rounds 2 and 3, that.``"""
    rounds: dict[str, list[int]] = {}
    for round_, fact in facts.items():
        rounds.setdefault(fact, []).append(round_)
    if len(rounds) == 1 and len(facts) > 1:
        return f"In each round, {next(iter(rounds))}."
    return " ".join(f"In {named_rounds(of)}, {fact}." for fact, of in rounds.items())


def named_rounds(rounds: Sequence[int]) -> str:
    """``round 1``, ``rounds 1 and 2`` or ``rounds 1, 2 and 3``."""
    *others, last = map(str, rounds)
    return f"rounds {', '.join(others)} and {last}" if others else f"round {last}"
