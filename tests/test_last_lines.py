"""What a person reads last when a command ends badly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging, sys
from pathlib import Path
from pipeline import command
from pipeline.errors import InputError, RunError

def work(argv):
    if argv[0] == "begun":
        logging.getLogger("pipeline").addHandler(logging.FileHandler(argv[1]))
    if argv[-1] == "asked":
        raise InputError("what was asked for is wrong")
    with command.at_work("refine", 2):
        error = {"broken": ZeroDivisionError, "damaged": RunError, "stopped": KeyboardInterrupt}[argv[-1]]("this")
        error.add_note("a library's note: round 7, nowhere")
        raise error

command.main(work)
"""


def end_of(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    script = folder / "work it.py"
    script.write_text(SCRIPT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    done = subprocess.run(
        [sys.executable, script.name, *arguments], cwd=folder, env=kept, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout.strip().splitlines()


def test_an_error_in_a_stage_names_place_log_and_command(tmp_path: Path) -> None:
    for kind, status, word in (("broken", 1, "failed"), ("damaged", 1, "stopped"), ("stopped", 130, "interrupted")):
        code, lines = end_of(tmp_path, "begun", "log.txt", kind)
        assert code == status
        assert lines[-1] == (
            f"{word} in round 2, refine; log: log.txt; what is finished is kept; "
            f"to resume: python 'work it.py' begun log.txt {kind}"
        )
        assert (tmp_path / "log.txt").read_text().splitlines()[-1].endswith(lines[-1])


def test_input_that_is_wrong_is_said_and_nothing_else(tmp_path: Path) -> None:
    assert end_of(tmp_path, "begun", "log.txt", "asked") == (1, ["error: what was asked for is wrong"])
    assert end_of(tmp_path, "asked") == (1, ["error: what was asked for is wrong"])
    code, lines = end_of(tmp_path, "damaged")
    assert (code, lines) == (1, ["error: this"]), "a run that was not opened"
