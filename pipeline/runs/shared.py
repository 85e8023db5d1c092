"""What all nodes of a launch must have in common: the run directory, and the inputs that decide what it computes."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import RunError
from pipeline.runs import ranks
from pipeline.runs.files import write_text

PATIENCE = 30.0
"""Seconds to wait for a file written by another node: NFS may serve a cached folder listing for this long."""


def require_shared_folder(folder: Path) -> None:
    """Check that every process sees what rank 0 writes in ``folder``; all ranks call this.

    Raises:
        RunError: a rank does not see it; raised on all ranks, naming that rank and its host.
    """
    if ranks.world_size() == 1:
        return
    mark = folder / ".launch"
    token = ranks.from_main(secrets.token_hex(16))
    if ranks.is_main():
        write_text(mark, token)
    ranks.barrier()
    where = f"{folder.resolve()} on {socket.gethostname()}"
    seen = ranks.gather((_sees(mark, token), where))
    if ranks.is_main():
        mark.unlink()
    blind = [f"process {rank} ({there})" for rank, (sees, there) in enumerate(seen) if not sees]
    if blind:
        raise RunError(
            f"{folder}: what process 0 ({seen[0][1]}) writes there is not seen by {', '.join(blind)}. All nodes need "
            "the run directory on one shared file system, mounted at the same path: choose such a --run_dir."
        )


def _sees(mark: Path, token: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        # Listing the folder makes a network file system look again.
        if mark.parent.is_dir() and mark in mark.parent.iterdir() and mark.read_text(encoding="utf-8") == token:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def require_same_inputs(digests: Mapping[str, str]) -> None:
    """Check that every process has read the same inputs; all ranks call this.

    Raises:
        RunError: a rank has read a different model, constitution or prompt set; raised on all ranks.
    """
    everyone = ranks.gather((dict(digests), socket.gethostname()))
    first, first_host = everyone[0]
    for rank, (theirs, host) in enumerate(everyone):
        if changed := sorted(name for name in {*first, *theirs} if first.get(name) != theirs.get(name)):
            raise RunError(
                f"{', '.join(changed)}: process {rank} on {host} has read something different from process 0 on "
                f"{first_host}. Give all nodes the same files, preferably on the shared file system."
            )
