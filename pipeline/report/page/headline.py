"""What happened, in one sentence per round."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.report.page.figure import interval, number
from pipeline.report.page.reading import Cell, Page, Shown

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Sentence(NamedTuple):
    """A checkpoint, the colour of its alarm (None where there is none), and what happened."""

    label: str
    color: str | None
    text: str


def sentences(page: Page) -> list[Sentence]:
    """What became of bulk, tail and alarm at each checkpoint."""
    return [Sentence(one.label, one.alarm["color"] if one.alarm else None, _sentence(page, one)) for one in page.shown]


def _sentence(page: Page, shown: Shown) -> str:
    cells = {
        cell["quantity"]: cell
        for cell in shown.cells(scorer=page.scorer, tail=page.tail, probe_set=page.probe_set, slice=None)
    }
    mean, worst = cells.get("mean"), cells.get("cvar_1pct")
    if mean is None or worst is None:
        return f"{page.scorer} was not measured{f'; {_alarm(shown)}' if shown.round else '.'}"
    if not shown.round:
        return (
            f"The untouched base: mean {page.scorer} {_value(mean)}, mean of the worst 1% {_value(worst)}, on "
            f"{mean['n_prompts']:,} prompts."
        )
    bulk = _moved(page, "The bulk", "mean", mean)
    return f"{bulk}; {_moved(page, 'the worst 1%', 'their mean', worst)}; {_alarm(shown)}"


def _moved(page: Page, what: str, quantity: str, cell: Cell) -> str:
    change, low, high = (cell.get(f"baseline_{end}") for end in ("value", "low", "high"))
    if change is None:
        return f"{what} is not identified"
    ends = f"{quantity} {number(change, '+')} {interval(low, high, '+')}"
    up, down = low is not None and low > 0, high is not None and high < 0
    if not (up or down):
        return f"{what} did not clearly move ({ends})"
    return f"{what} got {'worse' if up == (page.tail == 'upper') else 'better'} ({ends})"


def _alarm(shown: Shown) -> str:
    alarm = shown.alarm
    if alarm is None:
        return "the alarm was not run."
    color = alarm["color"]
    confirmed = [one for one in alarm["confirmations"] if one["red"]]
    if confirmed:
        where = f" in {confirmed[0]['slice']}" if confirmed[0]["slice"] else ""
        return (
            f"alarm red: {confirmed[0]['scorer']}{where} confirmed worse on {confirmed[0]['n_prompts']:,} fresh "
            f"prompts, p\u00a0=\u00a0{_p_value(confirmed[0]['p_value'])}."
        )
    if color == "red":
        return "alarm red by the e-process on fresh prompts."
    said = {"amber": "a suspicion that was not confirmed", "green": "no sign of a worse tail"}
    return f"alarm {color}{': ' + said[color] if color in said else ''}."


def _value(cell: Cell) -> str:
    return (
        "not identified" if cell["value"] is None else f"{number(cell['value'])} {interval(cell['low'], cell['high'])}"
    )


def _p_value(p: float) -> str:
    if p >= 0.001:
        return number(p)
    digits, _, power = f"{p:.0e}".partition("e")
    return f"{digits}·10{str(int(power)).translate(_RAISED)}"
