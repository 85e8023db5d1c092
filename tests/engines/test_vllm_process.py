from __future__ import annotations

import json
import logging
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from api_server import Api, completion
from filelock import FileLock

from pipeline.engines.balance import Patience
from pipeline.engines.base import Request, Sampling
from pipeline.engines.server import ServerEngine, load_reader
from pipeline.engines.vllm_process import (
    Vllm,
    VllmServers,
    find_python,
    gpu_groups,
    lora_targets,
    server_arguments,
    server_environment,
    vllm_version,
)
from pipeline.errors import EngineError, InputError


@pytest.fixture
def python(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture
def settings(python: Path, sandbox_path: str, tmp_path: Path) -> Vllm:
    return Vllm(str(python), sandbox_path, "abc", "bfloat16", 12, 4096, 2, 0.8, tmp_path)


def value_of(flag: str, arguments: list[str]) -> str:
    return arguments[arguments.index(flag) + 1]


def test_nothing_of_the_launch_leaks_into_the_server() -> None:
    launch = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "ROLE_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "x",
        "ACCELERATE_MIXED_PRECISION": "no",
        "FSDP_VERSION": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "/here",
        "VIRTUAL_ENV": "/venv",
    }
    kept = server_environment({**launch, "HOME": "/home/x", "HF_TOKEN": "t", "NCCL_DEBUG": "INFO"}, None)
    assert not launch.keys() & kept.keys()
    assert (kept["HOME"], kept["HF_TOKEN"], kept["NCCL_DEBUG"]) == ("/home/x", "t", "INFO")
    assert kept["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "CUDA_VISIBLE_DEVICES" not in kept
    assert server_environment({"OMP_NUM_THREADS": "4"}, ["2", "3"]) | {} == {
        **server_environment({}, None),
        "OMP_NUM_THREADS": "4",
        "CUDA_VISIBLE_DEVICES": "2,3",
    }


def test_gpus_are_shared_out_between_servers() -> None:
    assert gpu_groups([], 4) == [None]
    assert gpu_groups(["0", "1", "2", "3"], 1) == [["0"], ["1"], ["2"], ["3"]]
    assert gpu_groups(["0", "1", "2", "3", "4"], 2) == [["0", "1"], ["2", "3"]]
    with pytest.raises(InputError, match="vllm_tensor_parallel: is 4, but this node has only 2 GPUs"):
        gpu_groups(["0", "1"], 4)


def test_the_command_line_on_gpus_and_on_the_cpu(settings: Vllm) -> None:
    on_gpu = server_arguments(settings, "m-1", 8000, None)
    assert on_gpu[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert value_of("--max-lora-rank", on_gpu) == "16", "the least that vLLM takes for rank 12"
    assert value_of("--tensor-parallel-size", on_gpu) == "2"
    assert value_of("--max-model-len", on_gpu) == "4096"
    assert value_of("--host", on_gpu) == "127.0.0.1"
    assert value_of("--revision", on_gpu) == "abc"
    assert "--enforce-eager" not in on_gpu
    on_cpu = server_arguments(settings._replace(max_model_len=None, revision=None), "m-1", 8000, ["q_proj", "v_proj"])
    assert on_cpu[-3:] == ["--lora-target-modules", "q_proj", "v_proj"]
    assert not {"--tensor-parallel-size", "--max-model-len", "--revision", "None"} & set(on_cpu)


def test_lora_targets_are_all_linear_layers_but_the_head(sandbox_path: str) -> None:
    expected = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert lora_targets(sandbox_path, None) == expected


def test_the_interpreter_is_found_or_asked_for(python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_python(str(python)) == find_python(str(tmp_path)) == str(python)
    with pytest.raises(InputError, match="vllm_python: no such file"):
        find_python(str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(python.parent))
    with pytest.raises(InputError, match="vllm_python: /path/to/venv"):
        find_python(None)
    program = python.with_name("vllm")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_python(None) == str(python)


def test_an_environment_without_vllm_says_so() -> None:
    import sys

    with pytest.raises(InputError, match="has no vLLM"):
        vllm_version(sys.executable)


def test_a_server_of_the_run_wants_no_key() -> None:
    assert "VLLM_API_KEY" not in server_environment({"VLLM_API_KEY": "sk-of-another-server"}, None)


@pytest.fixture
def api() -> Iterator[Api]:
    with closing(Api("vllm")) as made:
        yield made


@pytest.fixture
def servers(api: Api, settings: Vllm) -> VllmServers:
    """What another process of this node has started: two servers, of which one has ended since."""
    gone = Api("vllm")
    gone.close()
    record = settings.folder / f"vllm-{socket.gethostname()}.json"
    record.write_text(json.dumps([[gone.url, "m"], [api.url, "m"]]))
    return VllmServers(settings)


def test_servers_of_which_one_is_gone_are_used_and_none_is_started_beside_them(
    api: Api, servers: VllmServers, settings: Vllm, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [Request([{"role": "user", "content": "hello"}], seed) for seed in range(12)]
    engine = ServerEngine(
        "m",
        servers.addresses,
        reader=partial(load_reader, settings.model, revision=None, chat_template=None),
        key_variables={},
        limit=4,
        patience=Patience(attempts=3, timeout=5.0, without_any=1.0),
        stop=servers.stop,
        advice=servers.advice,
    )
    with caplog.at_level(logging.INFO, logger="pipeline"), closing(engine):
        api.answer = lambda body: (200, completion(body), {"Connection": "close"})
        assert [one.finish_reason for one in engine.generate(requests, Sampling(1.0, 1.0, 5), None)] == ["stop"] * 12
        api.close()
        with pytest.raises(
            EngineError, match=rf"no answer for 1 s.* is in {settings.folder}/\*\.log; what is finished"
        ):
            engine.generate(requests, Sampling(1.0, 1.0, 5), None)
    assert "waiting" not in caplog.text and not list(settings.folder.glob("*.log"))


def test_whoever_waits_for_another_process_to_start_them_says_so(
    servers: VllmServers, settings: Vllm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.engines.vllm_process._SAYS_SO_EVERY", 0.1)
    with caplog.at_level(logging.INFO, logger="pipeline"), ThreadPoolExecutor() as pool:
        with FileLock(settings.folder / f"vllm-{socket.gethostname()}.lock"):
            found = pool.submit(servers.addresses)
            time.sleep(0.5)
            assert not found.done()
        assert len(found.result(timeout=10)) == 2
    assert "vLLM: waiting for" in caplog.text
