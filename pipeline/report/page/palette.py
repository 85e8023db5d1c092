"""Colours that colour-blind people can tell apart, on white paper and in dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.report.page.reading import Page

Rgb = tuple[float, float, float]

# After Okabe & Ito 2008, "Color Universal Design": without the yellow, and each far enough from white and from black.
RUNS = ("#2A7FBF", "#D55E00", "#009E73", "#B8669A", "#A87B0B", "#56B4E9")
# From first to last round: hue and lightness both change, and both ends stay visible on white and on black.
ROUNDS = ((0xE0, 0x8A, 0x00), (0xC2, 0x3B, 0x5A), (0x8D, 0x5B, 0xD0))
BASE = "#2A7FBF"
GREY = "#8a8a8a"


class Palette(NamedTuple):
    """Labels and their colours, in the order of the page, noise floors last; and the runs' colours by name."""

    labels: list[str]
    colors: list[str]
    runs: dict[str, str]


def palette(page: Page) -> Palette:
    """One run: round 0 blue, later ones from orange to violet. Several: one hue per run, stronger for later rounds."""
    labels = [shown.label for shown in page.shown]
    hues = {name: RUNS[i % len(RUNS)] for i, name in enumerate(page.runs)}
    if page.one_run:
        later = [label for label, shown in zip(labels, page.shown, strict=True) if shown.round]
        ramp = dict(zip(later, _ramp(ROUNDS, len(later)), strict=True))
        colors = [ramp.get(label, BASE) for label in labels]
    else:
        colors = [
            _towards_grey(hues[shown.run.label], _age(page, shown.run.label, shown.round)) for shown in page.shown
        ]
    bases = [page.base_label(run) for run in page.runs.values()]
    noises = [page.noise_label(run) for run in page.runs.values()]
    extra = [label for label in bases if label not in labels]
    return Palette(
        [*labels, *extra, *noises],
        [*colors, *([BASE if page.one_run else GREY] * len(extra)), *([GREY] * len(noises))],
        hues,
    )


def _age(page: Page, run: str, round_: int) -> float:
    """How far from the run's last round, in [0, 1]."""
    rounds = [shown.round for shown in page.shown if shown.run.label == run]
    return 0.0 if max(rounds) == 0 else 1 - round_ / max(rounds)


def _ramp(stops: Sequence[Rgb], number: int) -> list[str]:
    places = [(len(stops) - 1) * (i / (number - 1) if number > 1 else 0.5) for i in range(number)]
    found = []
    for place in places:
        left = min(int(place), len(stops) - 2)
        share = place - left
        found.append(_hex([a + (b - a) * share for a, b in zip(stops[left], stops[left + 1], strict=True)]))
    return found


def _towards_grey(color: str, share: float) -> str:
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return _hex([part + (0xA0 - part) * 0.6 * share for part in parts])


def _hex(parts: Sequence[float]) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in parts)
