"""Real servers, started once: vLLM's CPU build by the pipeline's own means, and `transformers serve`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.engines.balance import Patience
from pipeline.engines.server import ServerEngine, load_reader
from pipeline.engines.vllm_process import Vllm, VllmServers
from pipeline.inputs.addresses import Address, read_addresses

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

PATIENCE = Patience(attempts=8, timeout=60.0, without_any=20.0)


@pytest.fixture(scope="session")
def vllm_python(project: Path) -> str:
    """The interpreter of an environment with vLLM."""
    python = Path(os.environ.get("VLLM_PYTHON", ".venv-vllm/bin/python"))
    python = python if python.is_absolute() else project / python
    if not python.exists():
        pytest.skip(f"no vLLM environment ({python}); make it with `make vllm-env`")
    return str(python)


@pytest.fixture(scope="session")
def vllm_settings(vllm_python: str, sandbox_path: str, tmp_path_factory: pytest.TempPathFactory) -> Vllm:
    """The sandbox's model on vLLM."""
    return Vllm(
        python=vllm_python,
        model=sandbox_path,
        revision=None,
        dtype="float32",
        lora_rank=4,
        max_model_len=None,
        tensor_parallel=1,
        gpu_memory=0.9,
        folder=tmp_path_factory.mktemp("vllm"),
    )


@pytest.fixture(scope="session")
def vllm_address(vllm_settings: Vllm) -> Iterator[Address]:
    """A running vLLM."""
    servers = VllmServers(vllm_settings)
    yield servers.addresses()[0]
    servers.stop()


@pytest.fixture
def served(sandbox_path: str) -> Iterator[Callable[..., ServerEngine]]:
    """Engines over addresses, closed at the end."""
    made: list[ServerEngine] = []

    def make(addresses: str, patience: Patience = PATIENCE, *, tokens: bool = True, limit: int = 64) -> ServerEngine:
        read = partial(load_reader, sandbox_path, revision=None, chat_template=None)
        engine = ServerEngine(
            "m",
            partial(read_addresses, addresses),
            reader=read if tokens else None,
            key_variables={},
            limit=limit,
            patience=patience,
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="session")
def transformers_address(sandbox_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A running `transformers serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("transformers") / "log.txt"
    program = Path(sys.executable).with_name("transformers")
    arguments = ["serve", sandbox_path, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as file:
        process = subprocess.Popen([program, *arguments, "--dtype", "float32"], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 240
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield Address(f"http://127.0.0.1:{port}/v1", sandbox_path)
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
