"""Watching runs until they are finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from pipeline.comparing.progress import progress_of
from pipeline.errors import InputError
from pipeline.report.checkpoints import Checkpoint, run_and_round
from pipeline.report.terminal import printable

CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Clears a terminal, including what scrolled away, and goes to its top."""


def standing(given: Sequence[str]) -> str:
    """How far along the unfinished runs are, one line each; empty if all are finished.

    Args:
        given: ``RUN`` or ``RUN:ROUND``.

    Raises:
        InputError: there is no such run.
    """
    lines = {}
    for run, _ in map(run_and_round, given):
        if not run.resolved.exists():
            raise InputError(f"{run.path}: no run is there (no {run.resolved.name}).")
        progress = progress_of(run)
        if not progress.is_over:
            lines[run.path.resolve()] = f"{printable(str(run.path))}: {progress.sentence()}"
    return "\n".join(lines.values())


def watch(
    given: Sequence[str],
    resolve: Callable[[], list[Checkpoint]],
    show: Callable[[list[Checkpoint]], str],
    pause: float,
) -> Iterator[str]:
    """Yield what to print, each time that something should be printed, until the runs are finished.

    On a terminal that is the whole screen at every look. Elsewhere it is the table, whenever a round has been measured
    or its alarm has become known, and at the end.

    Args:
        given: ``RUN`` or ``RUN:ROUND``.
        resolve: returns the checkpoints that ``given`` names by now.
        show: returns the table of checkpoints.
        pause: seconds between two looks.

    Raises:
        InputError: there is no such run, or the runs are finished without what was asked for.
    """
    text, seen = "", None
    while True:
        where = standing(given)
        try:
            checkpoints = resolve()
        except InputError as error:
            if not where:
                raise
            checkpoints, text = [], f"Not measured yet: {error}"
        state = [(one.label, one.run.scores(one.round).stat().st_mtime_ns, _has_alarm(one)) for one in checkpoints]
        changed = state != seen
        if changed and checkpoints:
            text = show(checkpoints)
        seen = state
        if sys.stdout.isatty():
            yield f"{CLEAR}{text}\n\n{where or 'All runs are finished.'}"
        elif changed or not where:
            yield f"{text}\n\n{where or 'All runs are finished.'}\n"
        if not where:
            return
        time.sleep(pause)


def _has_alarm(checkpoint: Checkpoint) -> bool:
    return checkpoint.run.alarm(checkpoint.round).exists()
