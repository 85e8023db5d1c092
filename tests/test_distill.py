"""What the distill stage refuses before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import command, distill
from pipeline.errors import RunError
from pipeline.runs.files import write_json

RECIPE = """
model_name_or_path: sandbox
num_rounds: 1
constitution: constitutions/sandbox/full.txt
templates: constitutions/templates/sandbox
prompts: sandbox:train:24
probe_sets: [p=sandbox:probe:8]
scorers: [length]
"""


def test_an_adapter_that_is_gone_is_said_with_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    argv = ["--config", str(tmp_path / "recipe.yaml"), "--run_dir", str(tmp_path / "run")]
    session = command.open_session(command.parse(argv, command.StageOptions), argv)
    folder = session.run.stage_dir(1, "distill")
    inputs = {"refinements": None, "previous": None}
    write_json(folder / "manifest.json", {"inputs": inputs, "settings": "", "outputs": {"adapter": {}}})
    try:
        with pytest.raises(
            RunError, match=rf"adapter that was trained is missing.* delete {folder}, .*all later rounds"
        ):
            distill.run(session, 1)
    finally:
        session.close()
