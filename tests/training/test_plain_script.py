"""A small part of benchmarks/sft_step.py: a round trains as a plain TRL script with the same settings does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_losses_are_those_of_a_plain_script(tmp_path: Path, project: Path) -> None:
    script = project / "benchmarks" / "sft_step.py"
    given = ["--models", "sandbox", "--sandbox_rows", "96", "--only", "plain", "ours", "--repeats", "2"]
    done = subprocess.run(
        [sys.executable, str(script), *given, "--out", str(tmp_path / "found.json")],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())["sandbox"]
    assert found["plain"]["steps"]["median"] > 10
    assert found["largest difference of a logged loss from plain"] == {"plain": 0.0, "ours": 0.0}
    for kind in ("held_out_loss_refusals", "held_out_loss_answers"):
        assert found["ours"][kind] == found["plain"][kind]
