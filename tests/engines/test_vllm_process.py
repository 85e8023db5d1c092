from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.engines.vllm_process import (
    Vllm,
    find_python,
    gpu_groups,
    lora_targets,
    server_arguments,
    server_environment,
    vllm_version,
)
from pipeline.errors import InputError


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
