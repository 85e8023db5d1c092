"""SIGKILL at any instant loses nothing: the same command ends with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifacts import artifacts, assert_same
from commands import kill_when, run, write_recipe

KILLED_WHEN = [
    "recipe.resolved.json",
    "round-00/measure/parts-samples/000000.arrow",
    "round-00/measure/samples.parquet",
    "round-00/measure/parts-scores/000001.arrow",
    "round-00/drift.json",
    "round-01/generate/parts-responses/000001.arrow",
    "round-01/generate/responses.parquet",
    "round-01/generate/helpful.parquet",
    "round-01/refine/parts-refinements/000000.arrow",
    "round-01/refine/pairs.parquet",
    "round-01/distill/train.parquet",
    "round-01/distill/trainer/checkpoint-2/COMPLETE",
    "round-01/distill/trainer/checkpoint-6",
    "round-01/distill/.adapter.partial",
    "round-01/distill/adapter",
    "round-01/measure/parts-samples/000002.arrow",
    "round-01/measure/scores.parquet",
    "round-01/DONE",
    "round-02/generate/manifest.json",
    "round-02/distill/trainer/checkpoint-4/COMPLETE",
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = write_recipe(folder, rounds=2)
    run("iterate", "--config", recipe, "--run_dir", folder / "run", launcher="cpu")
    return recipe, folder / "run"


@pytest.mark.slow
def test_a_run_killed_at_every_stage_ends_with_the_same_bytes(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, expected = undisturbed
    run_dir = tmp_path / "run"
    killed = [kill_when(run_dir / name, "iterate", "--config", recipe, "--run_dir", run_dir) for name in KILLED_WHEN]
    assert all(killed), [name for name, was in zip(KILLED_WHEN, killed, strict=True) if not was]
    run("iterate", "--config", recipe, "--run_dir", run_dir)
    assert_same(run_dir, expected)


@pytest.mark.slow
def test_a_complete_run_says_so_and_stays_as_it_is(undisturbed: tuple[Path, Path]) -> None:
    recipe, run_dir = undisturbed
    before = artifacts(run_dir)
    printed = run("iterate", "--config", recipe, "--run_dir", run_dir)
    assert "is complete" in printed
    assert "gold.harm on in_distribution" in printed
    assert artifacts(run_dir) == before


@pytest.mark.slow
def test_the_stages_as_commands_of_their_own_make_the_same_round(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, expected = undisturbed
    run_dir = tmp_path / "run"
    run("measure", "--config", recipe, "--run_dir", run_dir, "--round", "0")
    run("alarm", "--run_dir", run_dir, "--round", "0")
    for stage in ("generate", "refine", "audit", "distill", "measure", "alarm"):
        run(stage, "--run_dir", run_dir, "--round", "1")
    ours, theirs = artifacts(run_dir), artifacts(expected)
    of_the_rounds = [n for n in theirs if n.startswith(("round-00/", "round-01/")) and not n.endswith("DONE")]
    assert [name for name in of_the_rounds if ours.get(name) != theirs[name]] == []
