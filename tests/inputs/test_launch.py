"""What a launch is refused for, before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trl import ModelConfig

from pipeline.errors import PreflightError
from pipeline.inputs import launch as launches
from pipeline.inputs.launch import Launch, check_launch, precision, quantization, this_launch
from pipeline.inputs.recipe import parse_recipe

ONE_CPU = Launch(1, 1, "cpu", 0, "one process")
DDP = Launch(8, 8, "cuda", 8, "DDP")
ZERO_2 = Launch(8, 8, "cuda", 8, "DeepSpeed", 2)
ZERO_3 = Launch(8, 8, "cuda", 8, "DeepSpeed", 3)
FSDP = Launch(8, 8, "cuda", 8, "FSDP")
NF4 = {"load_in_4bit": True, "dtype": "bfloat16"}
NF4_IN_BF16 = NF4 | {"bnb_4bit_quant_storage": "bfloat16"}


@pytest.mark.parametrize(
    ("launch", "model"),
    [
        (ONE_CPU, {}),
        (ONE_CPU, {"load_in_4bit": True, "dtype": "float32"}),
        (Launch(1, 1, "cuda", 1, "one process"), NF4),
        (Launch(2, 2, "cpu", 0, "DDP"), NF4),
        (Launch(2, 2, "cpu", 0, "DeepSpeed", 3), {}),
        (DDP, NF4),
        (ZERO_2, NF4),
        (ZERO_3, {}),
        (FSDP, {}),
        (FSDP, NF4_IN_BF16),
    ],
)
def test_what_works_passes(launch: Launch, model: dict[str, Any]) -> None:
    check_launch(launch, ModelConfig(**model))


@pytest.mark.parametrize(
    ("launch", "model", "message"),
    [
        (Launch(1, 1, "cuda", 4, "one process"), {}, r"sees 4 GPUs.*multi_gpu.yaml --num_processes 4.*CUDA_VISIBLE"),
        (Launch(8, 8, "cuda", 4, "DDP"), {}, r"8 processes on this machine, which see 4 GPUs.*--num_processes 4"),
        (Launch(2, 2, "cpu", 0, "FSDP"), {}, r"FSDP on a CPU.*DDP instead.*cpu_2proc.yaml"),
        (ONE_CPU, {"load_in_8bit": True}, r"load_in_8bit.*whole batch.*load_in_4bit: true"),
        (ZERO_3, NF4_IN_BF16, r"load_in_4bit: does not work with ZeRO-3.*zero2.yaml.*fsdp2_qlora.yaml"),
        (FSDP, NF4, r"found bnb_4bit_quant_storage uint8, dtype bfloat16.*bnb_4bit_quant_storage: bfloat16"),
        (FSDP, NF4_IN_BF16 | {"dtype": "float32"}, r"storage bfloat16, dtype float32.*dtype: bfloat16"),
        (FSDP, {"load_in_4bit": True, "dtype": "float32", "bnb_4bit_quant_storage": "float32"}, "dtype: bfloat16"),
    ],
)
def test_what_does_not_work_is_refused_with_the_way_out(launch: Launch, model: dict[str, Any], message: str) -> None:
    with pytest.raises(PreflightError, match=message):
        check_launch(launch, ModelConfig(**model))


def test_four_bits_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "find_spec", lambda name: None)
    with pytest.raises(PreflightError, match=r"bitsandbytes is not installed.*\[quantization\]"):
        check_launch(ONE_CPU, ModelConfig(load_in_4bit=True))


def test_a_launch_without_a_launcher(project: Path) -> None:
    parsed = parse_recipe([], default_config=project / "recipes" / "sandbox-full" / "config.yaml")
    launch = this_launch(parsed.training)
    assert (launch.processes, launch.strategy, launch.stage) == (1, "one process", 0)


def test_the_quantisation_on_record() -> None:
    assert quantization(ModelConfig()) is None
    found = quantization(ModelConfig(load_in_4bit=True, use_bnb_nested_quant=True))
    assert found == {"bits": 4, "type": "nf4", "double": True}
    assert precision("bfloat16", found) == "4-bit nf4 (double), computed in bfloat16"
    assert precision("bfloat16", None) == "bfloat16"


def keys_of(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


CONFIGS = sorted((Path(__file__).parents[2] / "accelerate_configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_launch_configuration_says_what_accelerate_reads(path: Path) -> None:
    """Accelerate's own loader, which refuses unknown keys; the keys within its two mappings against its launcher's."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(path))
    flags = vars(launch_command_parser().parse_args(["script.py"]))
    given = keys_of(path)
    for key in ("deepspeed_config", "fsdp_config"):
        for name in given.get(key, {}):
            assert name in flags, f"{key}.{name}"
    assert config.num_processes == given["num_processes"]
    assert config.distributed_type.value == given["distributed_type"]
    assert (config.distributed_type.value == "DEEPSPEED") == ("deepspeed_config" in given)
    assert (config.distributed_type.value == "FSDP") == ("fsdp_config" in given)
    assert config.mixed_precision == ("no" if path.stem.startswith("cpu") else "bf16")
    assert config.num_machines == (2 if path.stem.startswith("multi_node") else 1)


def test_a_wrong_key_would_be_found(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    spoilt = tmp_path / "spoilt.yaml"
    spoilt.write_text(CONFIGS[0].read_text() + "numer_of_processes: 4\n")
    with pytest.raises(ValueError, match="numer_of_processes"):
        load_config_from_file(str(spoilt))
