"""Training divided over processes: two of them on this CPU, killed and resumed, against one process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from commands import PROJECT, command, run, write_recipe
from launches import HALVED, KILLED_IN, Watched, losses, manifest, weights

ROUNDS = 3
STRATEGIES = {
    "cpu_2proc": "MULTI_CPU",
    "cpu_zero2": "DEEPSPEED ZeRO-2",
    "cpu_zero3": "DEEPSPEED ZeRO-3",
    "fsdp2": "FSDP",
}

pytestmark = [pytest.mark.devices, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("one")
    recipe = write_recipe(folder, rounds=ROUNDS)
    run("iterate", "--config", recipe, "--run_dir", folder / "run", launcher="cpu")
    return recipe, folder / "run"


def launch(launcher: str, *arguments: str | Path, folder: Path) -> Watched:
    """The command under a shipped configuration; FSDP2, which accelerate does not use on a CPU, by way of a trick."""
    if launcher != "fsdp2":
        return Watched(command("iterate", *arguments, launcher=launcher))
    shipped = yaml.safe_load((PROJECT / "accelerate_configs" / "fsdp2.yaml").read_text())
    config = folder / "fsdp2_two_processes.yaml"
    on_a_cpu = {"num_processes": 2, "mixed_precision": "no", "main_process_port": 0}
    config.write_text(yaml.safe_dump(shipped | on_a_cpu))
    words = command("iterate", *arguments, "--use_cpu", "false", "--ddp_backend", "gloo", launcher=launcher)
    words[words.index("--config_file") + 1] = str(config)
    words[words.index(str(PROJECT / "pipeline" / "iterate.py"))] = str(Path(__file__).with_name("iterate_fsdp_cpu.py"))
    return Watched(words, ACCELERATE_TORCH_DEVICE="cpu")


@pytest.mark.parametrize("launcher", STRATEGIES)
def test_two_processes_killed_and_resumed_train_what_one_trains(
    launcher: str, one_process: tuple[Path, Path], tmp_path: Path
) -> None:
    if "zero" in launcher:
        pytest.importorskip("deepspeed")
    recipe, expected = one_process
    run_dir = tmp_path / "run"
    arguments = ("--config", recipe, "--run_dir", run_dir, *HALVED)
    launch(launcher, *arguments, folder=tmp_path).kill_when(run_dir / KILLED_IN)
    assert not (run_dir / "round-01" / "distill" / "manifest.json").exists()

    resumed = launch(launcher, *arguments, folder=tmp_path)
    memory = resumed.memory_at([run_dir / f"round-{r:02d}" / "DONE" for r in range(1, ROUNDS)])
    assert resumed.wait() == 0, resumed.printed

    # What was sampled before any training is the same to the byte; so is the first round's training set.
    for name in ("round-00/measure/samples.parquet", "round-01/generate/responses.parquet"):
        assert (run_dir / name).read_bytes() == (expected / name).read_bytes()
    train = "round-01/distill/train.parquet"
    assert (run_dir / train).read_bytes() == (expected / train).read_bytes()
    for round_ in range(1, ROUNDS + 1):
        ours = manifest(run_dir, round_)
        assert ours["strategy"] == STRATEGIES[launcher], "what ran, not what was asked for"
        assert ours["timing"]["processes"] == 2
        check_adapter(run_dir, expected, round_)
    # Round 1 is the same rows in the same order, so its losses agree step by step; the ranks average over their own
    # tokens, and floating point adds up in another order.
    assert losses(run_dir, 1) == pytest.approx(losses(expected, 1), rel=0.05)
    # Later rounds train on what slightly different policies sampled.
    for round_ in range(2, ROUNDS + 1):
        ours_mean, theirs_mean = (sum(c) / len(c) for c in (losses(run_dir, round_), losses(expected, round_)))
        assert ours_mean == pytest.approx(theirs_mean, rel=0.15)
    # Memory is given back after training: the later round ends with what the earlier one ended with.
    for before, after in zip(*memory, strict=True):
        assert after < before + 60, memory


def test_a_training_killed_in_two_processes_begins_anew_in_one(one_process: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, expected = one_process
    run_dir = tmp_path / "run"
    arguments = ("--config", recipe, "--run_dir", run_dir, "--num_rounds", "1")
    launch("cpu_2proc", *arguments, folder=tmp_path).kill_when(run_dir / KILLED_IN)
    said = run("iterate", *arguments, launcher="cpu")
    assert "trainer: begun with other inputs, settings or processes; set aside as trainer.superseded-1" in said
    ours, theirs = manifest(run_dir, 1), manifest(expected, 1)
    assert ours["steps"] == theirs["steps"], "a step of two processes holds twice as many rows"
    assert ours["outputs"]["adapter"] == theirs["outputs"]["adapter"]


def check_adapter(run_dir: Path, expected: Path, round_: int) -> None:
    """Whole, changed, and loaded by one process that knows nothing of the launch."""
    from peft import AutoPeftModelForCausalLM

    ours, theirs = weights(run_dir, round_), weights(expected, round_)
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert all(tensor.abs().max() > 0 for name, tensor in ours.items() if "lora_B" in name)
    model = AutoPeftModelForCausalLM.from_pretrained(run_dir / f"round-{round_:02d}" / "distill" / "adapter")
    loaded = dict(model.named_parameters())
    for name, tensor in ours.items():
        assert torch.equal(loaded[name.replace(".weight", ".default.weight")], tensor), name
    if round_ == 1:
        for kind, least in (("lora_A", 0.99), ("lora_B", 0.85)):
            moved = [torch.cat([w[name].flatten() for name in sorted(w) if kind in name]) for w in (ours, theirs)]
            assert torch.cosine_similarity(*moved, dim=0) > least, kind


def test_a_trained_model_gives_its_memory_back_under_zero3() -> None:
    pytest.importorskip("deepspeed")
    recipe = PROJECT / "recipes" / "sandbox-full" / "config.yaml"
    flags = ("--config", recipe, "--per_device_train_batch_size", "2", "--max_grad_norm", "0.3")
    words = command("iterate", *flags, launcher="cpu_zero3")
    words[words.index(str(PROJECT / "pipeline" / "iterate.py"))] = str(Path(__file__).with_name("train_twice.py"))
    launched = Watched(words)
    assert launched.wait() == 0, launched.printed
    found = re.search(r"held: \[\[(\d+), (\d+)\], \[(\d+), (\d+)\]\]", launched.printed)
    assert found, launched.printed
    # What stays is the LoRA's share of the optimizer; the base has 1.3 million values, the buffers 500 million.
    assert all(int(after) < 500_000 for after in found.groups()[::2])
    assert all(int(after) < 1_000_000 for after in found.groups()[1::2])
