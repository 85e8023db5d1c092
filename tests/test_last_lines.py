"""What a person reads last when a command ends badly."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SCRIPT = """
import logging, sys
from pathlib import Path
from pipeline import command
from pipeline.errors import InputError, RunError

def work(argv):
    if argv[0] == "begun":
        logging.getLogger("pipeline").addHandler(logging.FileHandler(argv[1]))
    if argv[-1] == "told":
        logging.getLogger("pipeline").info("\N{CJK UNIFIED IDEOGRAPH-4E0D} is told")
        return
    if argv[-1] == "asked":
        raise InputError("what was asked for is wrong")
    with command.at_work("refine", 2):
        error = {"broken": ZeroDivisionError, "damaged": RunError, "stopped": KeyboardInterrupt}[argv[-1]]("this")
        error.add_note("a library's note: round 7, nowhere")
        raise error

command.main(work)
"""


def end_of(
    folder: Path, *arguments: str, launcher: Sequence[str] = (sys.executable,), **extra: str
) -> tuple[int, list[str]]:
    script = folder / "work it.py"
    script.write_text(SCRIPT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    done = subprocess.run(
        [*launcher, script.name, *arguments], cwd=folder, env=kept | extra, capture_output=True, text=True, timeout=120
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


def test_a_console_that_lacks_characters_is_still_told(tmp_path: Path) -> None:
    assert end_of(tmp_path, "told", PYTHONIOENCODING="latin-1") == (0, ["\\u4e0d is told"])


def test_output_that_the_launch_closed_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(
        "import sys\nfrom pipeline import command\ncommand.main(lambda _: sys.stdout.isatty())"
    )
    asked = f"{shlex.quote(sys.executable)} ask.py >&-"
    done = subprocess.run(["sh", "-c", asked], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_launcher_is_part_of_how_to_go_on(tmp_path: Path) -> None:
    module, program = "torch.distributed.run", Path(sys.executable).with_name("torchrun")
    rest = ["--standalone", "--nproc_per_node", "1"]
    for launcher, shown in (
        ([sys.executable, "-m", module], f"python -m {module}"),
        ([str(program)], "torchrun"),
    ):
        _, lines = end_of(tmp_path, "begun", "log.txt", "damaged", launcher=[*launcher, *rest])
        assert lines[-1].endswith(f"to resume: {shown} {shlex.join(rest)} 'work it.py' begun log.txt damaged")


def test_a_log_on_a_full_disk_costs_no_traceback_per_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    script = "import sys, logging; from pathlib import Path; from pipeline import command\n"
    script += "command._log_to(Path('/dev/full')); logging.getLogger('pipeline').error('said')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
