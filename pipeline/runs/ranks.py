"""The processes of one launch: who am I, how many are we, wait for the others."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")


def start(timeout_hours: float = 6.0) -> None:
    """Join the process group of the launch, if there is one.

    The first caller sets the group's timeout for good (30 minutes otherwise, on gloo), so this comes before
    anything of accelerate's or the Trainer's.
    """
    from accelerate import PartialState

    if world_size() > 1:
        PartialState(timeout=timedelta(hours=timeout_hours))
    else:
        PartialState()


def rank() -> int:
    """This process's number in the launch; 0 when it is alone. Read from the launch variables: needs no torch."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """The number of processes of the launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the run's shared files and speaks to the person."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process of the launch is here."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def from_main(value: T) -> T:
    """The value that rank 0 passed, on every rank (small, picklable)."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
