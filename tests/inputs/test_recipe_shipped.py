"""Every recipe and launch configuration in the repository can be read."""

import os
from pathlib import Path

import pytest

from pipeline.inputs.recipe import parse_recipe

ROOT = Path(__file__).parents[2]


def shipped(pattern):
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted(ROOT.glob(pattern))]


@pytest.mark.parametrize("path", shipped("recipes/**/*.yaml"))
def test_recipe(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    parsed = parse_recipe(["--config", str(path)], default_config=None)
    assert Path(parsed.recipe.constitution).is_file()
    assert Path(parsed.recipe.templates).is_dir()


@pytest.mark.parametrize("path", shipped("accelerate_configs/*.yaml"))
def test_launch_configuration(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
