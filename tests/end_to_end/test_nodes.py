"""Two nodes of one launch: two launches on this machine, found by address and port, of one process each."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PROJECT, command, run, write_recipe
from launches import HALVED, KILLED_IN, Watched, losses

pytestmark = [pytest.mark.devices, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("one")
    recipe = write_recipe(folder, rounds=1)
    run("iterate", "--config", recipe, "--run_dir", folder / "run", launcher="cpu")
    return recipe, folder / "run"


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


@pytest.mark.parametrize(
    ("other", "said"),
    [(("--constitution", "constitutions/sandbox/full.txt"), "constitution"), (("--temperature", "0.7"), "recipe")],
)
def test_nodes_that_read_other_inputs_are_told_so(
    one_process: tuple[Path, Path], tmp_path: Path, other: tuple[str, ...], said: str
) -> None:
    nodes = list(two_nodes("--config", one_process[0], "--run_dir", tmp_path / "run", of_second=other))
    assert all(node.wait(200) for node in nodes), "both fail"
    for node in nodes:
        assert f"{said}" in node.printed and ": process 1 on" in node.printed, node.printed
    assert not list(tmp_path.glob("run/round-*")), "nothing was done"
