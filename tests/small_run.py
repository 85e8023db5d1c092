"""Runs on the sandbox that take seconds: their recipe, to which tests add fields of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

RECIPE = {
    "model_name_or_path": "sandbox",
    "dtype": "float32",
    "num_rounds": 0,
    "constitution": "constitutions/sandbox/full.txt",
    "templates": "constitutions/templates/sandbox",
    "prompts": "sandbox:train:8",
    "max_new_tokens": 12,
    "probe_sets": ["p=sandbox:probe:6"],
    "probe_samples": 2,
    "scorers": ["length"],
}


def small_run(folder: Path, **fields: Any) -> list[str]:
    """Write ``recipe.yaml``, with fields added or changed; return the flags of its run, in the folder's ``run``."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | fields))
    return ["--config", str(folder / "recipe.yaml"), "--run_dir", str(folder / "run")]
