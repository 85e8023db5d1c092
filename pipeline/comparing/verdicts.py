"""Verdicts on a tail: by the run's own alarm where it watched that tail, else by the same tests on the panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.report.checkpoints import Checkpoint
from pipeline.report.panels import Panel
from pipeline.report.screen import SCREEN_LEVEL, screen_seed
from pipeline.runs.files import read_json
from pipeline.runs.rundir import RunDir
from pipeline.tails import Comparison, holm, tail_max
from pipeline.tails.arrays import Tail


class Verdict(NamedTuple):
    """The verdict on one tail.

    Attributes:
        color: green, amber, red or not identified. Only fresh prompts make red: an alarm's confirmation, or its
            e-process, which is about all tails that it watches together.
        slice: slice in which a worse tail was confirmed, or the evidence is strongest; None for all prompts.
        source: ``alarm.json`` of the round, or ``panel`` for tests made here.
        p_value: p-value on the panel, all its tests together; from ``slice_verdicts`` that of the slice alone,
            Holm-corrected over the slices. None where not identified.
        detectable: smallest factor on the rate beyond the threshold that would have been found four times in five;
            None where not identified, or for a slice.
        thresholds: thresholds beyond which the tail begins, least extreme first.
    """

    color: str
    slice: str | None
    source: str
    p_value: float | None
    detectable: float | None
    thresholds: tuple[float, ...]


def frozen_thresholds(run: RunDir) -> dict[tuple[str, str], tuple[float, ...]]:
    """The thresholds that a run fixed at round 0 for the first probe set, by scorer and tail."""
    return {(one["scorer"], one["tail"]): tuple(one["thresholds"]) for one in _alarm(run, 0).get("properties", [])}


def alarm_color(checkpoint: Checkpoint) -> str | None:
    """The colour of a round's alarm in its own run; None for round 0 and while it is not known yet."""
    color = _alarm(checkpoint.run, checkpoint.round).get("color")
    return None if color is None else str(color)


def recorded_verdict(checkpoint: Checkpoint, scorer: str, tail: Tail) -> Verdict | None:
    """What a round's alarm said about a tail, against its own round 0; None if it did not watch it, or not yet."""
    alarm = _alarm(checkpoint.run, checkpoint.round)
    for one in alarm.get("properties", []):
        if (one["scorer"], one["tail"]) == (scorer, tail) and "verdict" in one:
            red = [test for test in alarm["confirmations"] if test["red"] and test["scorer"] == scorer]
            red = [test for test in red if test["tail"] == tail]
            certain = alarm["e_process"] and alarm["e_process"]["alarm"]
            return Verdict(
                "red" if red or certain else one["verdict"],
                red[0]["slice"] if red else None,
                "alarm.json",
                one["panel_p"],
                one["detectable"]["ratio"],
                tuple(one["thresholds"]),
            )
    return None


def panel_verdict(result: Comparison, names: Sequence[str]) -> Verdict:
    """The verdict of a screen, given its result and the names of its slices."""
    ratio = result.detectable.ratio
    return Verdict(
        result.verdict,
        _loudest_slice(result, names) if result.verdict == "amber" else None,
        "panel",
        result.panel_p,
        None if np.isnan(ratio) else ratio,
        result.thresholds,
    )


def slice_verdicts(
    before: Panel, after: Panel, tail: Tail, seed: int, thresholds: Sequence[float], confirmed: str | None
) -> dict[str, Verdict]:
    """Screen every slice by itself, with p-values corrected for all of them (Holm).

    Args:
        before: panel of the baseline.
        after: panel of the other checkpoint, on the same prompts.
        tail: which end is the bad one.
        seed: seed of the run.
        thresholds: thresholds of the whole panel.
        confirmed: the slice in which fresh prompts confirmed a worse tail, if any.
    """
    labels = np.array(before.slices)
    names = sorted(set(before.slices))
    p_values: dict[str, float] = {}
    for name in names if thresholds else []:
        inside = labels == name
        test = tail_max(
            before.scores[inside],
            after.scores[inside],
            thresholds,
            tail=tail,
            seed=screen_seed(seed),
        )
        if test.p_value is not None and test.identified:
            p_values[name] = test.p_value
    p_values = dict(zip(p_values, holm(list(p_values.values())), strict=True)) if p_values else {}

    def color(name: str) -> str:
        if name == confirmed:
            return "red"
        return "not identified" if name not in p_values else "amber" if p_values[name] <= SCREEN_LEVEL else "green"

    return {
        name: Verdict(
            color(name),
            name,
            "alarm.json" if name == confirmed else "panel",
            p_values.get(name),
            None,
            tuple(thresholds),
        )
        for name in names
    }


def _loudest_slice(result: Comparison, names: Sequence[str]) -> str | None:
    test = result.tests.get("worst_slice")
    if test is None or test.slice_id is None or not test.identified or test.p_value > SCREEN_LEVEL:
        return None
    return names[test.slice_id]


def _alarm(run: RunDir, round_: int) -> dict[str, Any]:
    path = run.alarm(round_)
    return dict(read_json(path)) if path.exists() else {}
