"""The vLLM that the pipeline runs: in an environment of its own, on this node, for as long as this launch needs it."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from pipeline.errors import EngineError, InputError
from pipeline.inputs.addresses import Address

log = logging.getLogger("pipeline")

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for --max-lora-rank."""

_OF_THE_LAUNCH = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "TORCH_ELASTIC_", "PET_", "MASTER_", "GROUP_", "ROLE_",
                  "PARALLELISM_CONFIG_", "DEEPSPEED_")  # fmt: skip
_OF_THE_LAUNCH_TOO = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCH_NCCL_ASYNC_ERROR_HANDLING")
_OF_THIS_ENVIRONMENT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
_KEY = "VLLM_API_KEY"
"""A server that finds it refuses whoever does not send it, and the pipeline sends none to its own."""
_STARTS_WITHIN, _SAYS_SO_EVERY = 1800.0, 15.0
_GRACE = "10"
"""Seconds that vLLM has to exit by itself before it is killed."""


class Vllm(NamedTuple):
    """How vLLM is run.

    Attributes:
        python: interpreter of the environment with vLLM; None for that of the ``vllm`` on the path.
        model: Hub id or folder.
        revision: Hub revision, or None.
        dtype: name of a torch dtype.
        lora_rank: rank of the adapters that it will be given.
        max_model_len: maximum number of tokens of prompt and answer together; None for the model's own.
        tensor_parallel: GPUs that share one copy of the model.
        gpu_memory: share of each GPU's memory that it takes; on the CPU at most half of what is free.
        folder: folder for its logs, on a file system that all processes of this node see.
    """

    python: str | None
    model: str
    revision: str | None
    dtype: str
    lora_rank: int
    max_model_len: int | None
    tensor_parallel: int
    gpu_memory: float
    folder: Path


class VllmServers:
    """The vLLM servers of this node: as many as its GPUs hold, or one on the CPU.

    The first process of the node that asks for them starts them; the others use the same ones. They end when that
    process stops them or is gone, for whatever reason.
    """

    def __init__(self, settings: Vllm) -> None:
        self._settings = settings
        self._processes: list[subprocess.Popen[bytes]] = []
        name = f"vllm-{socket.gethostname()}"
        self._record = settings.folder / f"{name}.json"
        self._lock = settings.folder / f"{name}.lock"

    def addresses(self) -> list[Address]:
        """The servers' addresses; starts them if they are not running, which may take minutes.

        Raises:
            EngineError: vLLM did not start; names its log.
        """
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if self._record.exists():
                running = [Address(*given) for given in json.loads(self._record.read_text())]
                if any(_serves(address) for address in running):
                    return running  # those that are gone are left out; others would find the GPUs taken
            started = self._start()
            self._record.write_text(json.dumps(started))
            return started

    @property
    def advice(self) -> str:
        """What to do when all of them are gone."""
        return f"The run started them; why they ended is in {self._settings.folder}/*.log"

    def stop(self) -> None:
        """Stop what this process has started, and wait until it has ended."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait()
        if self._processes:
            self._record.unlink(missing_ok=True)
        self._processes = []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process of this node looks for servers or starts them; says so where that takes long."""
        from filelock import FileLock, Timeout

        lock, since = FileLock(self._lock), time.monotonic()
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_SAYS_SO_EVERY)
            except Timeout:
                waited = time.monotonic() - since
                log.info("vLLM: waiting for %.0f s: another process of this node is starting it", waited)
        try:
            yield
        finally:
            lock.release()

    def _start(self) -> list[Address]:
        # A name that no other server has, so that another one listening on the port is not mistaken for this one.
        model = f"{Path(self._settings.model).name}-{secrets.token_hex(6)}"
        groups = gpu_groups(_gpus(), self._settings.tensor_parallel)
        found, logs = [], []
        for number, gpus in enumerate(groups, 1):
            port = _free_port()
            path = self._settings.folder / f"vllm-{socket.gethostname()}-{number}.log"
            targets = lora_targets(self._settings.model, self._settings.revision) if gpus is None else None
            settings = self._settings if targets is None else self._settings._replace(gpu_memory=self._free_share())
            arguments = server_arguments(settings, model, port, targets)
            guard = [sys.executable, "-I", str(Path(__file__).with_name("guard.py")), str(os.getpid()), _GRACE]
            environment = server_environment(os.environ, gpus)
            with path.open("ab") as file:
                process = subprocess.Popen(
                    [*guard, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=environment,
                    cwd=self._settings.folder,
                    start_new_session=True,  # Ctrl-C goes to this process only, which then stops that one
                )
            self._processes.append(process)
            found.append(Address(f"http://127.0.0.1:{port}/v1", model))
            logs.append(path)
        log.info("vLLM: %d server%s starting; log %s", len(found), "s"[: len(found) > 1], logs[0])
        try:
            self._wait(found, logs)
        except BaseException:
            self.stop()
            raise
        return found

    def _free_share(self) -> float:
        """The share of this machine's memory for a server on the CPU: the pipeline's own models need some as well."""
        memory = psutil.virtual_memory()
        return min(self._settings.gpu_memory, round(0.5 * memory.available / memory.total, 2))

    def _wait(self, addresses: Sequence[Address], logs: Sequence[Path]) -> None:
        started = said = time.monotonic()
        while not all(_serves(address) for address in addresses):
            now = time.monotonic()
            for process, path in zip(self._processes, logs, strict=True):
                if process.poll() is not None:
                    raise EngineError(f"vLLM ended while starting; the last lines of {path}:\n{_tail(path)}")
            if now - started > _STARTS_WITHIN:
                raise EngineError(f"vLLM does not answer after {_STARTS_WITHIN / 60:.0f} minutes; see {logs[0]}.")
            if now - said > _SAYS_SO_EVERY:
                said = now
                log.info("vLLM: still starting after %.0f s: %s", now - started, _tail(logs[0], lines=1).strip()[:120])
            time.sleep(0.5)
        log.info("vLLM: ready after %.0f s", time.monotonic() - started)


def find_python(given: str | None) -> str:
    """The interpreter of the environment with vLLM.

    Raises:
        InputError: there is none.
    """
    if given is not None:
        path = Path(given).expanduser()
        path = path / "bin" / "python" if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"vllm_python: no such file: {given}. It must be the Python of an environment with vLLM.")
        return str(path.absolute())
    program = shutil.which("vllm")
    if program is None:
        raise InputError(
            "policy_engine: `vllm` needs an environment of its own with vLLM in it, and there is no `vllm` on the "
            "path. Name its Python: `vllm_python: /path/to/venv/bin/python`."
        )
    python = Path(program).resolve().with_name("python")
    if not python.is_file():
        raise InputError(f"{program}: no Python next to it. Name one: `vllm_python: /path/to/venv/bin/python`.")
    return str(python)


@cache
def vllm_version(python: str) -> str:
    """The version of vLLM in an interpreter's environment.

    Raises:
        InputError: there is none.
    """
    code = (
        "import importlib.metadata as m, importlib.util as u\n"
        "names = m.packages_distributions().get('vllm') if u.find_spec('vllm') else None\n"
        "print(m.version(names[0]) if names else '')"
    )
    done = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, env=server_environment(os.environ, None)
    )
    if done.returncode or not done.stdout.strip():
        raise InputError(f"{python}: has no vLLM (vllm_python). Install it there: `{python} -m pip install vllm`.")
    return done.stdout.strip()


def lora_targets(model: str, revision: str | None) -> list[str]:
    """Names of a model's linear layers except the output head: those that an adapter may change. Loads no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    head = empty.get_output_embeddings()
    linear = [(name, layer) for name, layer in empty.named_modules() if isinstance(layer, torch.nn.Linear)]
    return sorted({name.split(".")[-1] for name, layer in linear if layer is not head})


def server_arguments(settings: Vllm, name: str, port: int, targets: Sequence[str] | None) -> list[str]:
    """The command line of one server.

    Args:
        settings: settings of vLLM.
        name: name under which it serves the model.
        port: port to listen on.
        targets: layers that adapters may change, for a server on the CPU; None on GPUs.
    """
    given: dict[str, Any] = {
        "model": settings.model,
        "served-model-name": name,
        "revision": settings.revision,
        "dtype": settings.dtype,
        "host": "127.0.0.1",
        "port": port,
        "generation-config": "vllm",  # the model's own sampling defaults are not used
        "max-lora-rank": next(rank for rank in LORA_RANKS if rank >= settings.lora_rank),
        "max-loras": 1,
        "max-cpu-loras": 4,
        "max-model-len": settings.max_model_len,
        "gpu-memory-utilization": settings.gpu_memory,  # on the CPU, a share of the machine's memory
    }
    if targets is None:
        given["tensor-parallel-size"] = settings.tensor_parallel
    words = [str(word) for key, value in given.items() if value is not None for word in (f"--{key}", value)]
    switches = ["--enable-lora", "--no-enable-log-requests", "--disable-uvicorn-access-log"]
    if targets is not None:
        # vLLM 0.32 on the CPU crashes when it chunks the prompt of a seeded request ("CPU Generator does not use
        # offset"), and on prompt log-probabilities of several requests once the output head takes LoRA ("einsum():
        # subscript b has size ..."). Its compiler takes longer than it saves.
        switches += ["--enforce-eager", "--no-enable-chunked-prefill", "--lora-target-modules", *targets]
    python = find_python(settings.python)
    return [python, "-m", "vllm.entrypoints.openai.api_server", *words, *switches]


def server_environment(parent: Mapping[str, str], gpus: Sequence[str] | None) -> dict[str, str]:
    """The environment of a server: the parent's without what belongs only to its launch or its Python.

    A server that finds ``RANK`` or ``MASTER_ADDR`` believes it is part of the parent's process group, and hangs.
    """
    dropped = {*_OF_THE_LAUNCH_TOO, *_OF_THIS_ENVIRONMENT, _KEY}
    if int(parent.get("WORLD_SIZE", "1")) > 1:
        dropped.add("OMP_NUM_THREADS")  # set to 1 by the launcher, for each of its processes
    kept = {k: v for k, v in parent.items() if k not in dropped and not k.startswith(_OF_THE_LAUNCH)}
    kept |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONSAFEPATH": "1",
    }
    if gpus is not None:
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return kept


def gpu_groups(gpus: Sequence[str], together: int) -> list[list[str] | None]:
    """The GPUs of each server; ``[None]`` is one server on the CPU.

    Raises:
        InputError: there are fewer GPUs than one copy of the model needs.
    """
    if not gpus:
        return [None]
    if len(gpus) < together:
        raise InputError(f"vllm_tensor_parallel: is {together}, but this node has only {len(gpus)} GPUs.")
    return [list(gpus[i : i + together]) for i in range(0, len(gpus) - together + 1, together)]


def _gpus() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(i) for i in range(count)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serves(address: Address) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address.url}/models", timeout=10) as reply:
            listed = json.loads(reply.read())
    except (OSError, ValueError):
        return False
    return any(model.get("id") == address.model for model in listed.get("data", []))


def _tail(path: Path, lines: int = 15) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(text[-lines:])
