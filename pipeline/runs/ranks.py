"""The processes of one launch: who am I, how many are we, wait for the others."""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from pipeline.errors import InputError, first_line

T = TypeVar("T")

TIMEOUT = timedelta(hours=6)
"""The longest single wait: for another rank's whole share of a stage, or for what rank 0 does alone."""

_group: Any = None
"""All processes, over gloo. One that waits in NCCL keeps its GPU busy, where vLLM may be answering the others."""

_UNSET = (
    "start through `accelerate launch`, or unset RANK, LOCAL_RANK and WORLD_SIZE, if they are left from elsewhere."
)


def start() -> None:
    """Join the process group of the launch, if there is one.

    The first caller fixes the group's timeout, so this must come before any use of accelerate or the Trainer.

    Raises:
        InputError: the launch variables are not those of a whole launch, or DeepSpeed is missing.
    """
    import torch

    if asked_for("DEEPSPEED") and find_spec("deepspeed") is None:
        raise InputError(
            "the launch configuration asks for DeepSpeed, which is not installed; "
            'run `DS_BUILD_OPS=0 pip install --no-build-isolation -e ".[deepspeed]"`.'
        )
    if torch.backends.mps.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # Apple's GPUs lack float64, in which tokens are drawn
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed, if installed, warns that it found no other
    if rank() >= world_size():
        raise InputError(f"RANK={rank()} where WORLD_SIZE is {world_size()}: {_UNSET}")
    try:
        _join()
        _open_group()
    except ValueError as error:
        raise InputError(f"the processes of the launch cannot be joined ({first_line(error)}): {_UNSET}") from error


def _join() -> None:
    import torch
    from accelerate import PartialState

    if world_size() == 1:
        PartialState()
    elif torch.accelerator.is_available() and not asked_for("CPU"):
        PartialState(timeout=TIMEOUT)
    elif asked_for("DEEPSPEED"):
        import deepspeed

        # DeepSpeed would first spend a minute compiling this; a killed build leaves a lock that later ones wait for.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        PartialState(backend="gloo", timeout=TIMEOUT)  # accelerate names no backend for DeepSpeed on a CPU
    else:
        PartialState(cpu=True, timeout=TIMEOUT)


def _open_group() -> None:
    global _group  # one per process, like the process group itself
    if world_size() > 1:
        import torch

        _group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)


def leave() -> None:
    """Leave the process group, at the end of work that went well: after an error others may still wait in it."""
    if world_size() > 1:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def asked_for(name: Literal["CPU", "DEEPSPEED", "FSDP"]) -> bool:
    """Whether the launch configuration asks for this (accelerate passes it on as ``ACCELERATE_USE_...``)."""
    return os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true", "yes")


def rank() -> int:
    """This process's number in the launch; 0 when it is alone. Read from the launch variables: needs no torch."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """The number of processes of the launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def node_size() -> int:
    """The number of processes of the launch on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the run's shared files and reports to the user."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process of the launch gets here."""
    if world_size() > 1:
        import torch

        torch.distributed.barrier(group=_group)


def from_main(value: T) -> T:
    """The value passed by rank 0, on every rank (small, picklable)."""
    if world_size() == 1:
        return value
    import torch

    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=0, group=_group)
    return shared[0]


def gather(value: T) -> list[T]:
    """The values passed by all ranks, in rank order, on every rank (small, picklable)."""
    if world_size() == 1:
        return [value]
    import torch

    gathered = [value] * world_size()
    torch.distributed.all_gather_object(gathered, value, group=_group)
    return gathered
