"""Checkpoints as a person names them: a round of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.runs.rundir import RunDir


class Checkpoint(NamedTuple):
    """A measured round of a run."""

    run: RunDir
    round: int

    @property
    def label(self) -> str:
        """``NAME:2``, as a person would write it."""
        return f"{self.run.path.resolve().name}:{self.round}"


def find_checkpoints(given: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints that ``RUN`` (all its measured rounds) and ``RUN:ROUND`` name, each once, in the order given.

    Raises:
        InputError: there is no such run, or the round is not measured.
    """
    found: dict[tuple[Path, int], Checkpoint] = {}
    for name in given:
        run, round_ = run_and_round(name)
        measured = measured_rounds(run)
        wanted = measured if round_ is None else [round_]
        missing = [round_ for round_ in wanted if round_ not in measured]
        if missing or not measured:
            has = (
                f"measured rounds are {', '.join(map(str, measured))}" if measured else "nothing is measured there yet"
            )
            raise InputError(f"{name}: {has}; give RUN or RUN:ROUND.")
        found |= {(run.path.resolve(), round_): Checkpoint(run, round_) for round_ in wanted}
    return list(found.values())


def run_and_round(name: str) -> tuple[RunDir, int | None]:
    """The run that ``RUN`` or ``RUN:ROUND`` names, and the round if it names one; neither needs to exist."""
    folder, _, number = name.rpartition(":")
    one_round = bool(folder) and number.isdecimal() and not Path(name).is_dir()
    return (RunDir(Path(folder)), int(number)) if one_round else (RunDir(Path(name)), None)


def measured_rounds(run: RunDir) -> list[int]:
    """The rounds that have a drift table, whether the run is complete or in progress.

    Raises:
        InputError: there is no such run.
    """
    if not run.resolved.exists():
        raise InputError(f"{run.path}: no run is there (no {run.resolved.name}).")
    return run.measured_rounds()
