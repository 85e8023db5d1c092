from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines import guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds what a program left behind in /proc")

GUARD = Path(guard.__file__)

# A program as troublesome as they come: deaf to SIGTERM, with a child in a session of its own, whose parent has ended.
PROGRAM = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "300"])
middle = "import subprocess, sys; subprocess.Popen(['sleep', '300'], start_new_session=True)"
subprocess.run([sys.executable, "-c", middle], start_new_session=True)
print("ready", flush=True)
time.sleep(300)
"""

PARENT = f"""
import os, subprocess, sys, time
command = [sys.executable, {str(GUARD)!r}, str(os.getpid()), "0.5", sys.executable, "-c", sys.argv[1]]
subprocess.Popen(command, start_new_session=True)
time.sleep(300)
"""


def alive(mark: str) -> int:
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            count += f"GUARD_TEST={mark}".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
    return count


def none_left(mark: str) -> bool:
    deadline = time.monotonic() + 15
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive(mark) == 0


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A parent, its guard, a program, and two processes that it has left."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, PROGRAM],
        env={**os.environ, "GUARD_TEST": mark},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
    assert alive(mark) == 5
    yield parent, mark
    parent.kill()
    parent.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_parent(family: tuple[subprocess.Popen[str], str], number: signal.Signals) -> None:
    parent, mark = family
    parent.send_signal(number)
    parent.wait()
    assert none_left(mark)


def test_nothing_outlives_a_guard_that_is_asked_to_stop(family: tuple[subprocess.Popen[str], str]) -> None:
    parent, mark = family
    (guarding,) = guard.children_of(parent.pid)
    os.kill(guarding, signal.SIGTERM)
    deadline = time.monotonic() + 15
    while alive(mark) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(mark) == 1, "the parent alone"


def test_a_guard_exits_as_its_program_does() -> None:
    for status in (0, 3):
        command = [
            sys.executable,
            str(GUARD),
            str(os.getpid()),
            "1",
            sys.executable,
            "-c",
            f"raise SystemExit({status})",
        ]
        assert subprocess.run(command).returncode == status


def test_a_guard_whose_parent_is_gone_already_runs_nothing_on() -> None:
    command = [sys.executable, str(GUARD), "1", "1", "sleep", "300"]
    started = time.monotonic()
    assert subprocess.run(command).returncode == 0
    assert time.monotonic() - started < 10
