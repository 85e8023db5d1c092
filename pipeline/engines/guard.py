"""Runs a program that must not outlive its parent or leave processes behind. Needs only the standard library.

    python guard.py PARENT_PID GRACE PROGRAM ARGUMENT...

Ends PROGRAM, and whatever it has started, when the process PARENT_PID is gone, for whatever reason (a killed process
cannot clean up), or when this process receives SIGTERM, SIGINT or SIGHUP. PROGRAM then has GRACE seconds to exit by
itself. Otherwise this exits when PROGRAM does, with its status.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

POLL = 0.2
"""Seconds between checks of the parent."""

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def children_of(pid: int) -> list[int]:
    """Process ids of the children of a process; empty where there is no /proc."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, listing.read_text().split())
        except OSError:  # the thread is gone
            continue
    return found


def descendants_of(pid: int) -> list[int]:
    """Process ids of everything that a process has started and that is still running."""
    found = children_of(pid)
    for child in found:
        found += children_of(child)
    return found


def main(argv: list[str]) -> int:
    """Run the program until it ends or its parent does."""
    parent, grace, command = int(argv[0]), float(argv[1]), argv[2:]
    if sys.platform == "linux":
        # Processes that the program leaves behind become children of this one, so that they are found.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    program = subprocess.Popen(command, start_new_session=True)
    while program.poll() is None and not asked and os.getppid() == parent:
        time.sleep(POLL)
    status = program.poll()
    _end(program, grace)
    return status if status is not None else 0


def _end(program: subprocess.Popen[bytes], grace: float) -> None:
    if program.poll() is None:
        program.terminate()
        deadline = time.monotonic() + grace
        while program.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL)
    while left := descendants_of(os.getpid()):
        for pid in left:
            _kill(pid)
        time.sleep(0.05)
        _reap(program.pid)
    if program.poll() is None:
        program.kill()
        program.wait()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap(program: int) -> None:
    """Reap children that have ended: until then they count as running."""
    for pid in children_of(os.getpid()):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
