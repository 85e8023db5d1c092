"""One run in a tracker (TensorBoard, W&B or trackio): opened, given numbers by step, and closed."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

Log = Callable[[int, Mapping[str, float]], None]


class TrackerRun(NamedTuple):
    """How W&B and trackio identify a run.

    Attributes:
        project: project that holds the run.
        group: group of the runs that belong to one run directory.
        name: display name.
        id: id of the run, the same in every launch.
        folder: folder for what is kept on this machine.
        settings: settings shown beside the run.
    """

    project: str
    group: str
    name: str
    id: str
    folder: Path
    settings: Mapping[str, Any]


def write_events(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Write a step as its own TensorBoard event file, whole or not at all; a step written twice appears once."""
    from torch.utils.tensorboard import SummaryWriter

    unfinished = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    with SummaryWriter(str(unfinished)) as writer:
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)
    (written,) = unfinished.iterdir()
    folder.mkdir(exist_ok=True)
    # TensorBoard reads the files of a folder in the order of their names.
    written.replace(folder / f"events.out.tfevents.{step:010d}.step")
    unfinished.rmdir()


@contextmanager
def open_events(folder: Path, first_step: int) -> Iterator[Log]:
    """TensorBoard's event files in a folder, for steps from ``first_step`` on.

    Readers drop what an earlier launch wrote for those steps: a killed launch is resumed from its last checkpoint.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_step) as writer:

        def tell(step: int, values: Mapping[str, float]) -> None:
            for tag, value in values.items():
                writer.add_scalar(tag, value, step)
            writer.flush()

        yield tell


@contextmanager
def open_wandb(to: TrackerRun) -> Iterator[Log]:
    """A run in W&B, started or resumed; WANDB_MODE decides whether it leaves this machine."""
    import wandb

    run = wandb.init(
        project=to.project,
        group=to.group,
        name=to.name,
        id=to.id,
        resume="allow",
        reinit="create_new",  # or TRL would take it for its own
        dir=str(to.folder),
        config=dict(to.settings),
        # Numbers and the recipe, and nothing else: the console shows what models wrote.
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    try:
        yield lambda step, values: run.log(dict(values), step=step)
    finally:
        run.finish()


@contextmanager
def open_trackio(to: TrackerRun) -> Iterator[Log]:
    """A run in trackio's database on this machine, started or resumed."""
    import trackio

    with contextlib.redirect_stdout(io.StringIO()):
        run = trackio.init(
            project=to.project,
            group=to.group,
            name=f"{to.name}-{to.id[:6]}",  # trackio knows a run by its name alone
            resume="allow",
            config=dict(to.settings),
            private=True,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    try:
        yield lambda step, values: run.log(dict(values), step=step)
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()
