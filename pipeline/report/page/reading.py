"""The files of the runs on a page, each read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.checkpoints import Checkpoint
from pipeline.report.page.figure import printable
from pipeline.report.panels import Panel, to_panel
from pipeline.runs.files import read_json, read_json_lines
from pipeline.runs.rundir import RunDir
from pipeline.runs.tables import read_table

Tail = Literal["upper", "lower"]
Cell = Mapping[str, Any]

LEVEL = 0.95
"""Confidence level of each interval by itself."""

NOISE = "0 again"
"""Label of round 0 sampled a second time."""

_TEXT = ["prompt_id", "sample", "probe_set", "slice", "prompt", "response", "drop_reason"]


class Run:
    """A run on the page: its records, and round 0 with what was measured on it again."""

    def __init__(self, directory: RunDir, label: str) -> None:
        self.directory = directory
        self.label = label

    @cached_property
    def first(self) -> Shown:
        """The untouched base, whether or not the page shows it."""
        return Shown(Checkpoint(self.directory, 0), self, f"{self.label} base")

    @cached_property
    def again(self) -> pa.Table | None:
        """The scores of round 0 sampled a second time; None in a run without alarms."""
        path = self.directory.again_scores()
        return read_table(path) if path.exists() else None

    @cached_property
    def noise_floor(self) -> Sequence[Cell]:
        """Cells of round 0 against itself; none in a run without alarms."""
        path = self.directory.noise_floor()
        return read_json(path)["cells"] if path.exists() else []

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """Every field of the recipe."""
        return dict(read_json(self.directory.resolved))

    @cached_property
    def launches(self) -> Sequence[Mapping[str, Any]]:
        """Who ran it, with what."""
        path = self.directory.provenance
        return read_json(path) if path.exists() else []

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """Digests of the run's inputs."""
        path = self.directory.inputs
        return read_json(path) if path.exists() else {}

    @cached_property
    def amendments(self) -> Sequence[Mapping[str, Any]]:
        """What was changed along the way, and why."""
        return read_json_lines(self.directory.amendments)

    def noise(self, scorer: str, probe_set: str) -> Panel | None:
        """Round 0 sampled a second time, on the prompts of round 0's panel; None where it was not."""
        base = self.first.panel(scorer, probe_set)
        if self.again is None or not base.prompt_ids:
            return None
        panel = _panel(self.again, scorer, probe_set)
        return panel if panel.prompt_ids == base.prompt_ids else None


class Shown:
    """A checkpoint on the page."""

    def __init__(self, checkpoint: Checkpoint, run: Run, label: str) -> None:
        self.run = run
        self.round = checkpoint.round
        self.label = label
        self._directory = checkpoint.run
        self._panels: dict[tuple[str, str], Panel] = {}

    @cached_property
    def drift(self) -> Mapping[str, Any]:
        """The round's drift table."""
        return dict(read_json(self._directory.drift(self.round)))

    @cached_property
    def alarm(self) -> Mapping[str, Any] | None:
        """The round's alarm; None where there is none yet."""
        path = self._directory.alarm(self.round)
        return dict(read_json(path)) if path.exists() else None

    @cached_property
    def scores(self) -> pa.Table:
        """All scores of the round."""
        return read_table(self._directory.scores(self.round))

    @cached_property
    def samples(self) -> pa.Table:
        """Probe prompts and the answers of the round."""
        return read_table(self._directory.scores(self.round).with_name("samples.parquet"), _TEXT)

    @cached_property
    def refinements(self) -> pa.Table | None:
        """The critiques and revisions behind the round's training data; None in round 0, and where there are none."""
        path = self._directory.stage_dir(self.round, "refine") / "refinements.parquet"
        return read_table(path) if path.exists() else None

    @cached_property
    def critic(self) -> Mapping[str, Any] | None:
        """What is known about the round's critic; None in round 0."""
        path = self._directory.critic(self.round)
        return dict(read_json(path)) if path.exists() else None

    @cached_property
    def constitution(self) -> str | None:
        """The constitution as the round used it."""
        path = self._directory.stage_dir(self.round, "refine") / "constitution.txt"
        return path.read_text(encoding="utf-8") if path.exists() else None

    @property
    def manifests(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The manifests of the stages, each with the name of its folder."""
        folder = self._directory.round_dir(self.round)
        for path in sorted(folder.rglob("*manifest.json")):
            yield path.relative_to(folder).parts[0], read_json(path)

    def columns(self, probe_set: str) -> list[str]:
        """Names of the scores on a probe set."""
        return list(dict.fromkeys(cell["scorer"] for cell in self.cells(probe_set=probe_set)))

    def panel(self, scorer: str, probe_set: str) -> Panel:
        """One scorer's scores on one probe set; a panel without prompts where there are none."""
        key = scorer, probe_set
        if key not in self._panels:
            self._panels[key] = _panel(self.scores, scorer, probe_set)
        return self._panels[key]

    def change(self, scorer: str, probe_set: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Scores at round 0 and here, [n_prompts, k] each on the same prompts; None where one side has none."""
        before, after = self.run.first.panel(scorer, probe_set), self.panel(scorer, probe_set)
        same = before.prompt_ids == after.prompt_ids and len(after.prompt_ids) > 0
        return (before.scores, after.scores) if same else None

    def cells(self, **labels: Any) -> list[Cell]:
        """The cells of the drift table that carry these labels."""
        return [cell for cell in self.drift["cells"] if all(cell[name] == value for name, value in labels.items())]


class Page:
    """The checkpoints of a page, and what is looked at: a scorer, the end of it that is bad, and a probe set."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        names = _names([checkpoint.run for checkpoint in checkpoints])
        self.runs = {name: Run(directory, name) for name, directory in names.items()}
        by_path = {run.directory.path.resolve(): run for run in self.runs.values()}
        self.shown = []
        for checkpoint in checkpoints:
            run = by_path[checkpoint.run.path.resolve()]
            label = f"round {checkpoint.round}" if len(names) == 1 else f"{run.label}:{checkpoint.round}"
            self.shown.append(Shown(checkpoint, run, label))
        first = self.shown[0]
        self.scorer: str = first.drift["headline"]
        (head, *_) = first.cells(scorer=self.scorer)
        self.tail: Tail = head["tail"]
        self.probe_set: str = head["probe_set"]

    @property
    def bad_end(self) -> str:
        """Which end of the score is bad, in words."""
        tails = {cell["tail"] for cell in self.shown[0].cells(scorer=self.scorer)}
        if len(tails) > 1:
            return "both ends are bad; the figures of its tail show the high one"
        return "low is bad" if self.tail == "lower" else "high is bad"

    @property
    def later(self) -> list[Shown]:
        """The checkpoints that can have moved: all but round 0."""
        return [one for one in self.shown if one.round]

    @property
    def one_run(self) -> Run | None:
        """The run, if the page shows only one."""
        return next(iter(self.runs.values())) if len(self.runs) == 1 else None

    def base_label(self, run: Run) -> str:
        """Label of round 0 of a run."""
        return "round 0" if self.one_run else f"{run.label}:0"

    def noise_label(self, run: Run) -> str:
        """Label of round 0 of a run, sampled again."""
        return NOISE if self.one_run else f"{run.label}:{NOISE}"

    def thresholds(self, shown: Shown) -> list[float]:
        """The headline scorer's thresholds, frozen at round 0, least extreme first."""
        alarm = shown.run.first.alarm
        for one in alarm["properties"] if alarm else ():
            if (one["scorer"], one["tail"]) == (self.scorer, self.tail):
                return list(one["thresholds"])
        found = shown.run.first.cells(scorer=self.scorer, tail=self.tail, probe_set=self.probe_set, slice=None)
        return [found[0]["threshold"]] if found and found[0]["threshold"] is not None else []


def _panel(table: pa.Table, scorer: str, probe_set: str) -> Panel:
    return to_panel(table.filter((pc.field("scorer") == scorer) & (pc.field("probe_set") == probe_set)))


def _names(directories: Sequence[RunDir]) -> dict[str, RunDir]:
    """A name for each run, in order: its folder's, with as much of the path as tells it apart from the others."""
    unique = {directory.path.resolve(): directory for directory in directories}
    names = {}
    for path, directory in unique.items():
        for length in range(1, len(path.parts) + 1):
            name = "/".join(path.parts[-length:])
            if sum("/".join(other.parts[-length:]) == name for other in unique) == 1:
                break
        names[printable(name)] = directory
    return names


def is_noise(label: str) -> bool:
    """Whether a label is that of a noise floor."""
    return label.endswith(NOISE)
