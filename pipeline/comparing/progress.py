"""How far along a run is, seen from outside: what it has finished, what is under way, and when it last wrote."""

from __future__ import annotations

import time
from typing import NamedTuple

from pipeline.runs.files import read_json
from pipeline.runs.gate import ends_run
from pipeline.runs.rundir import RunDir

_STAGES = {
    "generate": "generate/manifest.json",
    "refine": "refine/manifest.json",
    "distill": "distill/manifest.json",
    "measure": "drift.json",
    "alarm": "alarm.json",
}


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
        is_over: whether no round will follow: all are finished, or a red alarm has ended the run.
        round: the round under way, or the last one.
        of: number of the last round that the recipe asks for.
        done: finished stages of that round.
        seconds_since: seconds since the round's last write, or None.
    """

    is_over: bool
    round: int
    of: int
    done: list[str]
    seconds_since: float | None

    def sentence(self) -> str:
        """Return the progress in words."""
        if self.is_over:
            return f"finished with round {self.round}"
        said = f"round {self.round} of {self.of} is not finished: {', '.join(self.done) or 'nothing'} done"
        return said if self.seconds_since is None else f"{said}, last written {_ago(self.seconds_since)}"


def progress_of(run: RunDir) -> Progress:
    """Where a run stands, from its files alone: it is neither locked nor touched."""
    recipe = read_json(run.resolved)
    finished = run.finished_rounds()
    last = recipe["num_rounds"]
    # A round without DONE that lies before a finished one is run again.
    under_way = next((round_ for round_ in range(last + 1) if round_ not in finished), last)
    ended = bool(finished) and ends_run(recipe["on_alarm"], read_json(run.alarm(finished[-1]))["color"])
    is_over = ended or len(finished) > last
    round_ = finished[-1] if ended else under_way
    folder = run.round_dir(round_)
    written = [path.stat().st_mtime for path in folder.rglob("*.parquet")] if folder.exists() else []
    return Progress(
        is_over,
        round_,
        last,
        [name for name, file in _STAGES.items() if (folder / file).exists()],
        max(time.time() - max(written), 0.0) if written else None,
    )


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"
