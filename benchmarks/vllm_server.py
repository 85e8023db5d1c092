"""A vLLM server as the pipeline starts it, and turn-taking between programs that stay loaded side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from pipeline.engines.balance import Patience
from pipeline.engines.server import ServerEngine, load_reader
from pipeline.engines.vllm_process import Vllm, VllmServers


@contextmanager
def served(python: str, model: str, logs: Path, limit: int = 256) -> Iterator[tuple[ServerEngine, str]]:
    """An engine over a running vLLM, and the server's address without `/v1`.

    Args:
        python: Python of the environment that has vLLM.
        model: folder of the model.
        logs: folder for the server's logs.
        limit: number of concurrent requests.
    """
    settings = Vllm(
        python=str(Path(python).absolute()),
        model=model,
        revision=None,
        dtype="float32",
        lora_rank=8,
        max_model_len=None,
        tensor_parallel=1,
        gpu_memory=0.9,
        folder=logs,
    )
    servers = VllmServers(settings)
    engine = ServerEngine(
        model,
        servers.addresses,
        reader=partial(load_reader, model, revision=None, chat_template=None),
        key_variables={},
        limit=limit,
        patience=Patience(3, 3600.0),
        stop=servers.stop,
    )
    try:
        yield engine, servers.addresses()[0].url.removesuffix("/v1")
    finally:
        engine.close()


@contextmanager
def alone(*others: psutil.Process) -> Iterator[None]:
    """Suspend processes and all their children meanwhile: vLLM polls while it waits, which takes up a core."""
    stopped = [process for other in others for process in [other, *other.children(recursive=True)]]
    for process in stopped:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()


def processes_of(work: str) -> list[psutil.Process]:
    """The children of this process whose command line contains ``work``."""
    return [child for child in psutil.Process().children() if any(work in word for word in child.cmdline())]
