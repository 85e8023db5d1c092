"""Mirrors of a run in TensorBoard, W&B and trackio: one tracker run per run directory, with the round as its step.

The run directory has everything first. A tracker that fails costs a warning, and gets what it missed after the next
round. Beside the run, each round's training has a tracker run of its own, with the optimiser's step.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.inputs.recipe import ParsedRecipe
from pipeline.inputs.trackers import named_trackers
from pipeline.report.tracked import tracked_values
from pipeline.report.tracker_runs import Log, TrackerRun, open_events, open_trackio, open_wandb, write_events
from pipeline.runs import ranks
from pipeline.runs.files import read_json, write_json
from pipeline.runs.rundir import RunDir

log = logging.getLogger("pipeline")


class Mirror(NamedTuple):
    """Where a run is mirrored.

    Attributes:
        trackers: names of the trackers.
        run: the run directory, or that of its placebo arm.
        title: display name of the run.
        project: project that groups runs in W&B and trackio.
        settings: the recipe as it was given.
    """

    trackers: tuple[str, ...]
    run: RunDir
    title: str
    project: str
    settings: dict[str, Any]


def mirror_of(parsed: ParsedRecipe, run: RunDir) -> Mirror:
    """The trackers that a recipe asks for, of its run or of one arm of it."""
    own = Path(str(parsed.recipe.run_dir)).resolve()
    arm = run.path.resolve().relative_to(own).parts
    return Mirror(
        named_trackers(parsed.resolved["report_to"]),
        run,
        "-".join([parsed.training.run_name or own.name, *arm]),
        os.environ.get("WANDB_PROJECT", parsed.training.project),
        {name: value for name, value in parsed.given.items() if name in parsed.resolved},
    )


def mirror_rounds(mirror: Mirror, last: int) -> None:
    """Send every tracker the rounds up to ``last`` that it has not received yet."""
    for name in mirror.trackers:
        for round_ in range(last + 1):
            told = _ledger(mirror).get(name, [])
            if round_ in told or not mirror.run.alarm(round_).exists():
                continue
            values = tracked_values(read_json(mirror.run.drift(round_)), read_json(mirror.run.alarm(round_)))
            if not _succeeds(name, partial(_tell_round, name, mirror, round_, values)):
                break  # in order, since W&B accepts no step before its last
            _note(mirror, name, [*told, round_])


def _tell_round(name: str, mirror: Mirror, round_: int, values: Mapping[str, float]) -> None:
    if name == "tensorboard":
        write_events(mirror.run.path / "tensorboard", round_, values)
        return
    with _service(name, mirror, "") as tell:
        tell(round_, values)


@contextmanager
def mirror_training(mirror: Mirror, round_: int) -> Iterator[Log]:
    """What rank 0 calls with the step and the Trainer's numbers; a tracker is opened when it first gets something."""
    if ranks.is_main():
        _forget(mirror, round_)
    opened: dict[str, Log] = {}
    closing = {name: ExitStack() for name in mirror.trackers}
    failed: set[str] = set()
    label = f"round-{round_:02d}"

    def tell(name: str, step: int, values: Mapping[str, float]) -> None:
        if name not in opened:
            events = mirror.run.path / "tensorboard" / label
            to = open_events(events, step) if name == "tensorboard" else _service(name, mirror, f"-{label}")
            opened[name] = closing[name].enter_context(to)
        opened[name](step, values)

    def tell_all(step: int, numbers: Mapping[str, float]) -> None:
        values = {f"train/{key}": value for key, value in numbers.items()}
        for name in mirror.trackers:
            if name not in failed and not _succeeds(name, partial(tell, name, step, values)):
                failed.add(name)

    try:
        yield tell_all
    finally:
        for name, stack in closing.items():
            _succeeds(name, stack.close)


def _forget(mirror: Mirror, round_: int) -> None:
    """Forget that trackers were sent a round, if they were: it is made again.

    TensorBoard gets the new one in the old one's place. Services take no step twice, so they get a new run with all
    rounds.
    """
    ledger = _ledger(mirror)
    if any(round_ in ledger.get(name, []) for name in mirror.trackers):
        kept = [told for told in ledger.get("tensorboard", []) if told < round_]
        write_json(_ledger_path(mirror), {"tensorboard": kept})


def _service(name: str, mirror: Mirror, suffix: str) -> AbstractContextManager[Log]:
    identity = _ledger(mirror).get("id") or _note(mirror, "id", uuid.uuid4().hex[:12])
    to = TrackerRun(
        mirror.project,
        mirror.title,
        f"{mirror.title}{suffix}",
        f"{identity}{suffix}",
        mirror.run.path,
        mirror.settings,
    )
    return open_wandb(to) if name == "wandb" else open_trackio(to)


def _succeeds(name: str, act: Callable[[], None]) -> bool:
    """Whether ``act`` succeeded; services fail in ways of their own, and none of them may end a run."""
    try:
        act()
    except Exception as error:
        log.warning("report_to: %s failed (%s: %s); the run continues without it", name, type(error).__name__, error)
        return False
    return True


def _ledger_path(mirror: Mirror) -> Path:
    return mirror.run.path / "trackers.json"


def _ledger(mirror: Mirror) -> dict[str, Any]:
    """The rounds that each tracker has received, and the run's id, which no other run directory has."""
    path = _ledger_path(mirror)
    return dict(read_json(path)) if path.exists() else {}


def _note(mirror: Mirror, key: str, value: Any) -> Any:
    write_json(_ledger_path(mirror), _ledger(mirror) | {key: value})
    return value
