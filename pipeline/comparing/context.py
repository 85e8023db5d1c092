"""What accompanies the numbers of a comparison on the terminal: differences, data and cost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from pipeline.comparing.differences import Difference, find_differences, round_data
from pipeline.comparing.table import Style, names_of, plain
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.costs import Price, cost_so_far, round_cost
from pipeline.report.terminal import columns, paint, printable

_HEAD = 14


def context_report(checkpoints: Sequence[Checkpoint], price: Price | None, *, color: bool = False) -> str:
    """Differences between checkpoints, the data that their rounds trained on, and what they cost.

    Args:
        checkpoints: the baseline first.
        price: price for the cost in money; None leaves that out.
        color: whether to mark with colours.
    """
    style = paint if color else plain
    parts = [_differences(checkpoints, style), _data(checkpoints, style), _costs(checkpoints, price, style)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _differences(checkpoints: Sequence[Checkpoint], style: Style) -> list[str]:
    names = dict(zip(checkpoints, names_of(checkpoints), strict=True))
    alike: dict[str, list[Difference]] = {}
    for one in find_differences(checkpoints):
        if one:
            # The first two lines of a diff name the checkpoints.
            alike.setdefault(repr((one.constitution[2:], *one[2:])), []).append(one)
    lines = []
    for same in alike.values():
        whose = ", ".join(names[one.checkpoint] for one in same)
        lines += [
            "",
            style(f"What differs from {names[checkpoints[0]]} in {whose}", "bold"),
            *_difference(same[0], style),
        ]
    return lines[1:]


def _difference(one: Difference, style: Style) -> Iterator[str]:
    yield from _listed("recipe", one.recipe)
    # The constitution is shown as a diff below; a change of what the recipe names is listed above.
    yield from _listed("other content", [", ".join(one.inputs)] if one.inputs else [])
    yield from _listed("engine", one.engine)
    yield from _listed("amended", one.amendments)
    diff = [printable(line) for line in one.constitution[2:]]
    colors = {"+": "green", "-": "red", "@": "faint"}
    for i, line in enumerate(diff):
        head = "constitution" if i == 0 else ""
        painted = style(line, colors[line[0]]) if line[:1] in colors else line
        yield f"  {head:<{_HEAD}}{painted}"


def _listed(head: str, texts: Sequence[str]) -> Iterator[str]:
    for i, text in enumerate(texts):
        first = f"  {head if i == 0 else '':<{_HEAD}}"
        yield from textwrap.wrap(
            printable(text), 118, initial_indent=first, subsequent_indent=" " * (_HEAD + 4), break_on_hyphens=False
        )


def _data(checkpoints: Sequence[Checkpoint], style: Style) -> list[str]:
    rows = []
    for name, checkpoint in zip(names_of(checkpoints), checkpoints, strict=True):
        if (data := round_data(checkpoint)) is not None:
            rows.append(
                [
                    name,
                    f"{data.answers:,}",
                    _counted(data.unusable) or "0",
                    f"{data.revisions:,}",
                    _counted(data.dropped) or "0",
                    f"{data.kept:,}",
                    _counted(data.trained) or "0",
                    f"{data.steps:,}",
                ]
            )
    head = ["data", "answers", "unusable", "revisions", "dropped", "rewritten", "trained on", "steps"]
    return _table(head, rows, "l r l r l r l r", style)


def _costs(checkpoints: Sequence[Checkpoint], price: Price | None, style: Style) -> list[str]:
    head = ["cost of the round", "tokens read", "sampled", "trained", "seconds", "device-s"]
    head += ["all so far: tokens", "device-s"] + (["money"] if price else [])
    rows = []
    for name, checkpoint in zip(names_of(checkpoints), checkpoints, strict=True):
        here, so_far = round_cost(checkpoint), cost_so_far(checkpoint)
        counts = [f"{count:,}" for count in (here.prompt_tokens, here.new_tokens, here.trained_tokens)]
        seconds = [f"{value:,.1f}" for value in (here.seconds, here.device_seconds)]
        total = [f"{so_far.prompt_tokens + so_far.new_tokens:,}", f"{so_far.device_seconds:,.1f}"]
        rows.append([name, *counts, *seconds, *total, *([f"{so_far.money(price):,.4f}"] if price else [])])
    return _table(head, rows, "l r r r r r r r" + (" r" if price else ""), style)


def _table(head: list[str], rows: list[list[str]], layout: str, style: Style) -> list[str]:
    if not rows:
        return []
    first, *others = columns([head, *rows], layout)
    return [style(first, "faint"), *others]


def _counted(counts: Mapping[str, int]) -> str:
    return printable(", ".join(f"{count:,} {name}" for name, count in counts.items()))
