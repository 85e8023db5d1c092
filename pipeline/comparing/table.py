"""Checkpoints side by side as a table for the terminal: bulk, tail, change and verdict of every score."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from pipeline.comparing.comparison import Entry, Group, SideBySide
from pipeline.comparing.verdicts import Verdict, alarm_color
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.numbers import FOOTNOTE, change, end_of, moved, number
from pipeline.report.terminal import columns, paint, printable, shorten

Style = Callable[..., str]

_BULK, _TAIL, _RATE = "mean", "cvar_1pct", "exceedance_ratio"
_LAYOUT = "l rl rl l l"
_LONGEST_NAME = 16
_WRAPPED: Any = {"width": 118, "break_on_hyphens": False, "initial_indent": "  ", "subsequent_indent": "  "}
_ABOUT_VERDICTS = (
    "tail: amber is a suspicion, at the 5% level for a score and for all its slices together; red was confirmed on "
    "fresh prompts by the alarm of the run. Green means that no sign was seen; --json says what would have been."
)


def plain(text: str, *_: str) -> str:
    """Text without style."""
    return text


def names_of(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Names of checkpoints in tables: the round within one run, else as much of the path as tells the runs apart."""
    paths = {one.run.path.resolve() for one in checkpoints}
    if len(paths) == 1:
        return [f"round {one.round}" for one in checkpoints]
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    of_runs = {path: printable("/".join(path.parts[-depth:])) for path in paths}
    short = {path: shorten(name, _LONGEST_NAME - len(":00")) for path, name in of_runs.items()}
    if len(set(short.values())) < len(paths):
        short = {path: f"run {number}" for number, path in enumerate(sorted(paths), 1)}
    return [f"{short[one.run.path.resolve()]}:{one.round}" for one in checkpoints]


def comparison_report(found: SideBySide, *, everything: bool = False, color: bool = False) -> str:
    """The comparison as a table.

    Scores that did not move are only named, and slices whose tail shows no sign of getting worse only counted.

    Args:
        found: the comparison.
        everything: whether to leave nothing out.
        color: whether to mark with colours.
    """
    style = paint if color else plain
    names = names_of(found.checkpoints)
    blocks = [(group, list(entries)) for group, entries in groupby(found.entries, key=lambda entry: entry.group)]
    everything = everything or len(names) == 1
    shown = [(group, entries) for group, entries in blocks if everything or _is_worth_showing(group, entries, found)]
    head = ["", "mean", f"since {names[0]}", "CVaR 1%", f"since {names[0]}", "beyond q99, x", "tail"]
    rows = [_row(entry, names, style) for _, entries in shown for entry in entries]
    lines = iter(columns([head, *rows], _LAYOUT))
    text = [style(next(lines), "faint")]
    for group, entries in shown:
        text += ["", style(_title(group, entries, found), "bold")]
        text += [next(lines) for _ in entries]
    return "\n".join([*text, "", *_notes(blocks, shown, found)])


def checkpoints_report(found: SideBySide, *, color: bool = False) -> str:
    """What is compared: the runs, what their own alarms said, and the differences that are overlooked."""
    style = paint if color else plain
    checkpoints, names = found.checkpoints, names_of(found.checkpoints)
    runs = {one.run.path.resolve() for one in checkpoints}
    if len(runs) == 1:
        others = f": {', '.join(names[1:])} against {names[0]}" if names[1:] else f": {names[0]}"
        lines = [printable(str(checkpoints[0].run.path)) + others]
    else:
        rows = [["checkpoint", "run", "alarm of its own run"]]
        rows += [
            [name, printable(str(one.run.path)), verdict_text(alarm_color(one), None, style)]
            for name, one in zip(names, checkpoints, strict=True)
        ]
        lines = [*columns(rows, "l l l"), f"  Every change is since {names[0]}, paired by prompt."]
    overlooked = dict.fromkeys(f"{one.kind}: {one.text}" for one in found.overlooked)
    if overlooked:
        lines += [style("  NOT LIKE FOR LIKE, so numbers may differ for these reasons alone:", "bold", "amber")]
        lines += [f"    {printable(text)}" for text in overlooked]
    return "\n".join(lines)


def verdict_text(verdict: str | None, slice_name: str | None, style: Style = plain) -> str:
    """A verdict in a word, with the slice that it comes from."""
    if verdict is None:
        return ""
    where = f": {printable(slice_name)}" if slice_name else ""
    if verdict == "red":
        return style("RED", "bold", "red") + where
    return (style(verdict, verdict) if verdict in ("amber", "green") else "-") + where


def _is_worth_showing(group: Group, entries: Sequence[Entry], found: SideBySide) -> bool:
    suspected = any(entry.verdict and entry.verdict.color in ("amber", "red") for entry in entries)
    if suspected or group.slice is not None:
        return suspected
    changes = (entry.cells[name] for entry in entries[1:] for name in (_BULK, _TAIL, _RATE))
    heads = (group.scorer, group.probe_set) == (found.headline, next(iter(found.prompts)))
    return heads or any(moved(cell, "baseline_") for cell in changes)


def _has_change(entry: Entry) -> bool:
    return any(entry.cells[name].get("baseline_value") is not None for name in (_BULK, _TAIL, _RATE))


def _name(group: Group) -> str:
    where = f", {group.slice}" if group.slice else ""
    return f"{end_of(group.scorer, group.tail)} on {group.probe_set}{where}"


def _title(group: Group, entries: Sequence[Entry], found: SideBySide) -> str:
    n_prompts = max(cell["n_prompts"] for entry in entries for cell in entry.cells.values())
    common, of = found.prompts[group.probe_set]
    scope = f", of those in common ({common:,} of {of:,})" if common < of else ""
    return printable(f"{_name(group)}: {n_prompts:,} prompts{scope}")


def _row(entry: Entry, names: Sequence[str], style: Style) -> list[str]:
    row = [names[entry.checkpoint]]
    for quantity in (_BULK, _TAIL):
        value = entry.cells[quantity]["value"]
        row += ["-" if value is None else number(value), _change(entry, quantity)]
    return [*row, _change(entry, _RATE), _verdict(entry.verdict, entry.group, style)]


def _change(entry: Entry, quantity: str) -> str:
    cell = entry.cells[quantity]
    known = entry.checkpoint and cell["value"] is not None and cell["baseline_value"] is not None
    if not known:
        return ""
    nothing = cell["baseline_value"] == cell["baseline_low"] == cell["baseline_high"] == 0
    return "+0" if nothing else change(cell, "baseline_", digits=2)


def _verdict(verdict: Verdict | None, group: Group, style: Style) -> str:
    if verdict is None:
        return ""
    return verdict_text(verdict.color, verdict.slice if group.slice is None else None, style)


def _notes(
    blocks: Sequence[tuple[Group, list[Entry]]], shown: Sequence[tuple[Group, list[Entry]]], found: SideBySide
) -> Iterator[str]:
    hidden = [group for group, _ in blocks if group not in {group for group, _ in shown}]
    unknown = {group for group, entries in blocks if not any(_has_change(entry) for entry in entries)}
    for what, named in (("Nothing moved", set(hidden) - unknown), ("Not identified", unknown)):
        if names := [_name(group) for group in hidden if group in named and group.slice is None]:
            yield from textwrap.wrap(printable(f"{what}: {', '.join(names)}."), **_WRAPPED)
    if slices := sum(group.slice is not None for group in hidden):
        yield f"  {slices} slices without a sign of a worse tail are left out; --all shows them."
    for text in found.left_out:
        yield from textwrap.wrap(printable(f"Left out: {text}."), **_WRAPPED)
    yield f"  {FOOTNOTE}"
    if any(entry.verdict and entry.verdict.source == "panel" for entry in found.entries):
        yield from textwrap.wrap(_ABOUT_VERDICTS, **_WRAPPED)
