"""Checkpoints side by side: every quantity, its change since the first of them, and what tests say about the tail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from pipeline.comparing.comparable import Obstacle, probe_prompts, recipe_at, require_comparable
from pipeline.comparing.verdicts import Verdict, frozen_thresholds, panel_verdict, recorded_verdict, slice_verdicts
from pipeline.report.checkpoints import Checkpoint
from pipeline.report.drift import LEVEL, THRESHOLD_QUANTILE
from pipeline.report.panels import Panel, to_panel
from pipeline.report.screen import screen
from pipeline.runs.files import read_json
from pipeline.runs.tables import read_table
from pipeline.tails import frozen_threshold, summarise
from pipeline.tails.arrays import Tail

Cell = dict[str, Any]


class Group(NamedTuple):
    """One end of one score on one set of prompts: what a block of the table is about."""

    scorer: str
    tail: Tail
    probe_set: str
    slice: str | None


class Entry(NamedTuple):
    """What is known about one group under one checkpoint.

    Attributes:
        group: the group.
        checkpoint: index of the checkpoint, 0 for the baseline.
        cells: cells by quantity, as in drift.json; changes (``baseline_``) are since the baseline.
        verdict: verdict on the tail; None for the baseline.
    """

    group: Group
    checkpoint: int
    cells: dict[str, Cell]
    verdict: Verdict | None


class SideBySide(NamedTuple):
    """A comparison of checkpoints.

    Attributes:
        checkpoints: the checkpoints compared, the baseline first.
        headline: the scorer that heads the table.
        level: confidence level of the intervals.
        entries: groups in the order of the recipe, the headline first; within a group, checkpoints in their order.
        prompts: probe set -> how many prompts all checkpoints have in common, and how many the baseline has.
        overlooked: differences that the user asked to overlook.
        left_out: probe sets and scores that not every checkpoint has.
    """

    checkpoints: list[Checkpoint]
    headline: str
    level: float
    entries: list[Entry]
    prompts: dict[str, tuple[int, int]]
    overlooked: list[Obstacle]
    left_out: list[str]


def compare_checkpoints(
    checkpoints: Sequence[Checkpoint], *, despite: Sequence[str] = (), everything: bool = False
) -> SideBySide:
    """Compare checkpoints with the first of them, paired by prompt. Reads the runs, and writes nothing.

    Covers the headline scorer on every probe set and slice, and the others as a whole, on the first set where each
    checkpoint has a score of them.

    Args:
        checkpoints: measured checkpoints, the baseline first.
        despite: kinds of differences to overlook, see ``pipeline.comparing.comparable``.
        everything: whether to cover every scorer on every probe set and slice.

    Raises:
        InputError: they cannot be compared.
        RunError: a run is damaged.
    """
    overlooked = require_comparable(checkpoints, despite)
    probes = [probe_prompts(checkpoint) for checkpoint in checkpoints]
    common = {
        name: set.intersection(*(set(of[name]) for of in probes))
        for name in probes[0]
        if all(name in of for of in probes)
    }
    drift = read_json(checkpoints[0].run.drift(checkpoints[0].round))
    scores = [_Scores(checkpoint) for checkpoint in checkpoints]
    ends = list(dict.fromkeys((cell["scorer"], cell["tail"]) for cell in drift["cells"]))
    ends = [end for end in ends if all(end[0] in of.columns for of in scores)]
    ends.sort(key=lambda end: end[0] != drift["headline"])
    comparer = _Comparer(checkpoints, scores, first_set=next(iter(probes[0])))
    entries = []
    for scorer, tail in ends:
        in_full = everything or scorer == drift["headline"]
        sets = [name for name in common if all(name in of.probe_sets(scorer) for of in scores)]
        scored = [name for name in sets if all(name in of.scored_sets(scorer) for of in scores)]
        for name in sets if in_full else (scored or sets)[:1]:
            entries += comparer.entries(Group(scorer, tail, name, None), common[name], slices=in_full)
    return SideBySide(
        list(checkpoints),
        drift["headline"],
        LEVEL,
        entries,
        {name: (len(ids), len(probes[0][name])) for name, ids in common.items()},
        overlooked,
        _left_out(checkpoints, probes, [of.columns for of in scores]),
    )


class _Scores:
    """The scores of a checkpoint, read once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._table = read_table(checkpoint.run.scores(checkpoint.round))
        self.columns = [str(name) for name in pc.unique(self._table["scorer"]).to_pylist()]

    def probe_sets(self, scorer: str) -> list[str]:
        return list(pc.unique(self._table.filter(pc.field("scorer") == scorer)["probe_set"]).to_pylist())

    def scored_sets(self, scorer: str) -> list[str]:
        """The probe sets with a score: a scorer may be about one of them only, and give reasons on the others."""
        scored = self._table.filter((pc.field("scorer") == scorer) & pc.field("score").is_valid())
        return list(pc.unique(scored["probe_set"]).to_pylist())

    def panel(self, scorer: str, probe_set: str) -> Panel:
        return to_panel(self._table.filter((pc.field("scorer") == scorer) & (pc.field("probe_set") == probe_set)))


class _Comparer:
    def __init__(self, checkpoints: Sequence[Checkpoint], scores: Sequence[_Scores], first_set: str) -> None:
        self._checkpoints, self._scores, self._first_set = checkpoints, scores, first_set
        self._frozen = frozen_thresholds(checkpoints[0].run)
        self._seed = int(recipe_at(checkpoints[0])["seed"])

    def entries(self, group: Group, prompts: set[str], *, slices: bool) -> list[Entry]:
        """The entries of a probe set as a whole, and of its slices if asked for."""
        panels = [of.panel(group.scorer, group.probe_set) for of in self._scores]
        ids = sorted(prompts.intersection(*(panel.prompt_ids for panel in panels)))
        if not ids:
            return []
        panels = [_rows(panel, np.isin(panel.prompt_ids, ids)) for panel in panels]
        # A prompt counts for the slice that the baseline puts it in.
        labels = np.array(panels[0].slices)
        panels = [panel._replace(slices=panels[0].slices) for panel in panels]
        whole = [None, *(self._verdict(group, panels, i) for i in range(1, len(panels)))]
        found = self._of(group, panels, whole)
        names = sorted(set(labels)) if slices else []
        if len(names) > 1:
            of_slices = [
                {},
                *(self._slice_verdicts(group, panels, i, verdict) for i, verdict in enumerate(whole) if verdict),
            ]
            for name in names:
                part = [_rows(panel, labels == name) for panel in panels]
                found += self._of(group._replace(slice=str(name)), part, [of.get(name) for of in of_slices])
        return found

    def _of(self, group: Group, panels: Sequence[Panel], verdicts: Sequence[Verdict | None]) -> list[Entry]:
        base = panels[0].scores
        threshold = frozen_threshold(base, THRESHOLD_QUANTILE, tail=group.tail)
        beyond = None if np.isnan(threshold) else threshold
        found = []
        for i, (panel, verdict) in enumerate(zip(panels, verdicts, strict=True)):
            rows = summarise(
                base if i else None, panel.scores, threshold=beyond, tail=group.tail, level=LEVEL, seed=self._seed
            )
            cells = {row.quantity: {**group._asdict(), "threshold": beyond, **row.flat()} for row in rows}
            found.append(Entry(group, i, cells, verdict))
        return found

    def _verdict(self, group: Group, panels: Sequence[Panel], i: int) -> Verdict:
        baseline, checkpoint = self._checkpoints[0], self._checkpoints[i]
        of_panel = group.probe_set == self._first_set
        own = baseline.round == 0 and baseline.run.path.resolve() == checkpoint.run.path.resolve()
        if own and of_panel and (recorded := recorded_verdict(checkpoint, group.scorer, group.tail)):
            return recorded
        watched = of_panel and (group.scorer, group.tail) in self._frozen
        screened = screen(
            panels[0],
            panels[i],
            tail=group.tail,
            seed=self._seed,
            thresholds=self._frozen[group.scorer, group.tail] if watched else None,
            battery=self._battery(group, panels[0].prompt_ids, i) if watched else None,
            replicates=1,  # for a table of estimates, which nobody reads here
        )
        return panel_verdict(*screened)

    def _battery(self, group: Group, ids: list[str], i: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Both sides of the first battery, which warns of the first watched property."""
        columns = [name for name in self._scores[0].columns if name.startswith("likelihood.")]
        if (
            not columns
            or columns[0] not in self._scores[i].columns
            or (group.scorer, group.tail) != next(iter(self._frozen))
        ):
            return None
        sides = [self._scores[number].panel(columns[0], group.probe_set) for number in (0, i)]
        if not all(set(ids) <= set(side.prompt_ids) for side in sides):
            return None
        before, after = (_rows(side, np.isin(side.prompt_ids, ids)).scores[:, 0] for side in sides)
        return before, after

    def _slice_verdicts(self, group: Group, panels: Sequence[Panel], i: int, whole: Verdict) -> dict[str, Verdict]:
        confirmed = whole.slice if whole.color == "red" else None
        return slice_verdicts(panels[0], panels[i], group.tail, self._seed, whole.thresholds, confirmed)


def _rows(panel: Panel, keep: np.ndarray) -> Panel:
    names = np.flatnonzero(keep)
    return Panel([panel.prompt_ids[i] for i in names], [panel.slices[i] for i in names], panel.scores[keep])


def _left_out(
    checkpoints: Sequence[Checkpoint], probe_sets: Sequence[Iterable[str]], scores: Sequence[Iterable[str]]
) -> list[str]:
    """What some checkpoints lack, one text per set of checkpoints that have it."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind, of_checkpoints in (("probe sets", probe_sets), ("scores", scores)):
        for name in dict.fromkeys(name for names in of_checkpoints for name in names):
            has = [one.label for one, names in zip(checkpoints, of_checkpoints, strict=True) if name in names]
            if len(has) < len(checkpoints):
                found.setdefault(", ".join(has), {}).setdefault(kind, []).append(name)
    return [
        f"what only {who} measured, the "
        + " and the ".join(f"{kind} {', '.join(names)}" for kind, names in of_kinds.items())
        for who, of_kinds in found.items()
    ]
