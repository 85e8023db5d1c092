"""A run that reports to TensorBoard, killed and resumed: its event files hold every round and step once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import attempt, kill_when, run, write_recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow

KILLED_WHEN = [
    "tensorboard/events.out.tfevents.0000000000.step",
    "round-01/distill/trainer/checkpoint-4/COMPLETE",
    "tensorboard/events.out.tfevents.0000000001.step",
]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_round_and_every_training_step_is_there_once(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = ("--config", write_recipe(tmp_path, rounds=2), "--run_dir", run_dir, "--report_to", "tensorboard")
    killed = [kill_when(run_dir / name, "iterate", *arguments) for name in KILLED_WHEN]
    assert all(killed)
    printed = run("iterate", "--run_dir", run_dir)  # a run keeps its recipe, and its trackers
    assert "report_to" not in printed

    found = scalars(run_dir / "tensorboard")
    drifts = [json.loads((run_dir / f"round-{r:02d}" / "drift.json").read_text())["cells"] for r in range(3)]
    means = [next(c["value"] for c in cells if c["quantity"] == "mean") for cells in drifts]
    assert found["bulk/gold.harm/mean"] == [(r, pytest.approx(mean, rel=1e-6)) for r, mean in enumerate(means)]
    assert [step for step, _ in found["tail/length/worst_of_k"]] == [0, 1, 2]
    assert not [tag for tag in found if tag.startswith("train/")]
    for round_ in (1, 2):
        manifest = json.loads((run_dir / f"round-{round_:02d}" / "distill" / "manifest.json").read_text())
        curve = [(entry["step"], pytest.approx(entry["loss"], rel=1e-6)) for entry in manifest["loss_curve"]]
        trained = scalars(run_dir / "tensorboard" / f"round-{round_:02d}")
        assert trained["train/loss"] == curve
        assert len(trained["train/learning_rate"]) == len(curve)

    before = {path: path.read_bytes() for path in (run_dir / "tensorboard").rglob("*") if path.is_file()}
    run("iterate", "--run_dir", run_dir)
    assert {path: path.read_bytes() for path in (run_dir / "tensorboard").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--report_to", "mlflow"], "report_to: unknown tracker `mlflow`; there are tensorboard, wandb, trackio"),
        (["--push_to_hub", "true"], "push_to_hub: a run uploads nothing by itself"),
        (["--trackio_space_id", "me/space"], "trackio_space_id: a run uploads nothing by itself"),
    ],
)
def test_what_would_upload_or_fail_later_is_refused_before_anything_is_done(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = attempt("iterate", "--config", write_recipe(tmp_path), "--run_dir", tmp_path / "run", *arguments)
    assert done.returncode == 1 and says in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()
