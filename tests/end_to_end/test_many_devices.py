"""Training divided over processes: two of them on this CPU, killed and resumed, against one process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from commands import PROJECT, attempt, command, environment, run, write_recipe
from safetensors.torch import load_file

ROUNDS = 3
KILLED_IN = "round-01/distill/trainer/checkpoint-2/COMPLETE"
STRATEGIES = {
    "cpu_2proc": "MULTI_CPU",
    "cpu_zero2": "DEEPSPEED ZeRO-2",
    "cpu_zero3": "DEEPSPEED ZeRO-3",
    "fsdp2": "FSDP",
}
HALVED = ("--per_device_train_batch_size", "4")
"""The same global batch: two processes with half of it each."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def manifest(run_dir: Path, round_: int) -> dict[str, Any]:
    return dict(json.loads((run_dir / f"round-{round_:02d}" / "distill" / "manifest.json").read_text()))


def losses(run_dir: Path, round_: int) -> list[float]:
    return [entry["loss"] for entry in manifest(run_dir, round_)["loss_curve"]]


def weights(run_dir: Path, round_: int) -> dict[str, torch.Tensor]:
    return dict(load_file(run_dir / f"round-{round_:02d}" / "distill" / "adapter" / "adapter_model.safetensors"))


class Watched:
    """A launch, and the memory of its processes at the end of every round."""

    def __init__(self, words: list[str], **variables: str) -> None:
        self.process = psutil.Popen(
            words,
            cwd=PROJECT,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.printed = self.process.stdout.read()

    def workers(self) -> list[psutil.Process]:
        return [p for p in self.process.children(recursive=True) if "--run_dir" in p.cmdline()]

    def kill_when(self, appears: Path, timeout: float = 300) -> None:
        """SIGKILL to the launcher and all that it started, as when a machine loses its power."""
        deadline = time.monotonic() + timeout
        while not appears.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.stop()
            time.sleep(0.002)
        self.stop()

    def stop(self) -> str:
        for one in [self.process, *self.process.children(recursive=True)]:
            one.kill()
        self._reader.join()
        return self.printed

    def memory_at(self, marks: list[Path], timeout: float = 600) -> list[list[float]]:
        """MB resident of every worker as each mark appears."""
        found, deadline = [], time.monotonic() + timeout
        for mark in marks:
            while not mark.exists():
                assert self.process.poll() is None and time.monotonic() < deadline, self.stop()
                time.sleep(0.002)
            found.append(sorted(worker.memory_info().rss / 1e6 for worker in self.workers()))
        return found

    def wait(self, timeout: float = 600) -> int:
        try:
            status = int(self.process.wait(timeout))
        finally:
            self.stop() if self.process.poll() is None else self._reader.join()
        return status


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


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("one")
    recipe = write_recipe(folder, rounds=ROUNDS)
    run("iterate", "--config", recipe, "--run_dir", folder / "run", launcher="cpu")
    return recipe, folder / "run"


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


# -- nodes ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def two_nodes(
    *arguments: str | Path, second: tuple[str, ...] = (), of_second: tuple[str, ...] = ()
) -> Iterator[Watched]:
    """A launch on each of two nodes, of one process each, that find one another by address and port.

    The second is started by ``second`` and has the arguments ``of_second`` behind the common ones.
    """
    port = free_port()
    for rank in (0, 1):
        nodes = ["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(rank)]
        nodes += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
        words = command("iterate", *arguments, *(of_second if rank else ()), launcher="cpu_2proc")
        at = words.index(str(PROJECT / "pipeline" / "iterate.py"))
        yield Watched([*(second if rank else ()), *words[:at], *nodes, *words[at:]])


def test_two_nodes_make_what_one_makes(one_process: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, expected = one_process
    run_dir = tmp_path / "run"
    nodes = list(two_nodes("--config", recipe, "--run_dir", run_dir, "--num_rounds", "1", *HALVED))
    assert [node.wait() for node in nodes] == [0, 0], [node.printed for node in nodes]
    for name in ("round-01/generate/responses.parquet", "round-01/refine/refinements.parquet"):
        assert (run_dir / name).read_bytes() == (expected / name).read_bytes()
    assert losses(run_dir, 1) == pytest.approx(losses(expected, 1), rel=0.05)
    assert "Round 1" in nodes[0].printed and "Round 1" not in nodes[1].printed


def test_a_node_that_fails_ends_the_others(one_process: tuple[Path, Path], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    nodes = list(two_nodes("--config", one_process[0], "--run_dir", run_dir, *HALVED))
    nodes[1].kill_when(run_dir / KILLED_IN)
    assert nodes[0].wait(100) != 0
    assert not (run_dir / "round-01" / "DONE").exists()


def mounts_allowed() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-rm", "true"]).returncode


@pytest.mark.skipif(not mounts_allowed(), reason="a mount of one's own (unshare -rm) is not allowed here")
def test_nodes_without_a_shared_file_system_are_told_so(one_process: tuple[Path, Path], tmp_path: Path) -> None:
    # The second node sees another file system where the first has the run directory.
    apart = tmp_path / "apart"
    apart.mkdir()
    mounted = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs none "{apart}" && exec "$@"', "sh")
    nodes = list(two_nodes("--config", one_process[0], "--run_dir", apart / "run", second=mounted))
    assert all(node.wait(200) for node in nodes), "both fail"
    for node in nodes:
        assert "is not seen by process 1" in node.printed, node.printed
        assert "one shared file system" in node.printed
    assert not list(apart.glob("run/round-*")), "nothing was done"


def test_nodes_that_read_other_inputs_are_told_so(one_process: tuple[Path, Path], tmp_path: Path) -> None:
    other = ("--constitution", "constitutions/sandbox/full.txt")
    nodes = list(two_nodes("--config", one_process[0], "--run_dir", tmp_path / "run", of_second=other))
    assert all(node.wait(200) for node in nodes), "both fail"
    for node in nodes:
        assert "constitution: process 1 on" in node.printed, node.printed
    assert not list(tmp_path.glob("run/round-*")), "nothing was done"


# -- four bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", ["cpu", "cpu_zero2"])
def test_a_round_on_a_four_bit_base(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    if "zero" in launcher:
        pytest.importorskip("deepspeed")
    recipe = write_recipe(tmp_path, rounds=1, extra="load_in_4bit: true\nuse_bnb_nested_quant: true\n")
    run("iterate", "--config", recipe, "--run_dir", tmp_path / "run", launcher=launcher)
    stated = {"bits": 4, "type": "nf4", "double": True}
    manifests = sorted((tmp_path / "run").rglob("*manifest.json"))
    assert len(manifests) > 6
    for path in manifests:
        assert json.loads(path.read_text())["engine"]["quantization"] == stated, path
    # Round 0 was measured on the base as it is trained: 4-bit, which is not what full precision samples.
    full = write_recipe(tmp_path, rounds=0)
    run("iterate", "--config", full, "--run_dir", tmp_path / "full")
    samples = [(tmp_path / n / "round-00" / "measure" / "samples.parquet").read_bytes() for n in ("run", "full")]
    assert samples[0] != samples[1]
    curve = losses(tmp_path / "run", 1)
    assert sum(curve[-3:]) < sum(curve[:3])
    assert all(tensor.any() for name, tensor in weights(tmp_path / "run", 1).items() if "lora_B" in name)


def test_what_four_bits_cannot_do_is_said_before_anything_is_done(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    recipe = write_recipe(tmp_path, rounds=1, extra="load_in_4bit: true\n")
    refused = attempt("iterate", "--config", recipe, "--run_dir", tmp_path / "run", launcher="cpu_zero3")
    assert refused.returncode
    assert "load_in_4bit: not with ZeRO-3" in refused.stdout
    assert not (tmp_path / "run").exists()
    assert os.environ.get("RANK") is None
