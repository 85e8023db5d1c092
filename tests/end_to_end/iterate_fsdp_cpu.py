"""`iterate` under FSDP2 on a CPU, for the tests: it works over gloo, but accelerate 1.15 never uses it there.

For ``MULTI_CPU`` accelerate leaves FSDP out and trains with DDP, so the command itself refuses such a launch. Here
accelerate is told that the processes of this CPU are GPUs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType

from pipeline import command, iterate
from pipeline.runs import ranks


def like_gpus(*_: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


def start() -> None:
    PartialState(timeout=timedelta(hours=1))


if __name__ == "__main__":
    PartialState._prepare_backend = like_gpus
    ranks.start = start
    command.check_launch = lambda *_: None
    command.main(iterate.main)
