"""Checks that this launch, with its devices and the way it divides training, can do what a recipe asks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipeline.errors import PreflightError
from pipeline.runs import ranks

if TYPE_CHECKING:
    from trl import ModelConfig, SFTConfig


class Launch(NamedTuple):
    """What was launched.

    Attributes:
        processes: number of processes on all nodes together.
        on_node: number of processes on this node.
        device: kind of accelerator; ``cpu`` if there is none or none is used.
        visible: number of accelerators that this process sees.
        strategy: how training is divided among the processes.
        stage: stage of ZeRO; 0 for any other strategy.
    """

    processes: int
    on_node: int
    device: str
    visible: int
    strategy: Literal["one process", "DDP", "DeepSpeed", "FSDP"]
    stage: int = 0


def this_launch(training: SFTConfig) -> Launch:
    """The launch that this process belongs to, after ``ranks.start``."""
    import torch
    from accelerate import PartialState

    device = PartialState().device.type
    visible = torch.accelerator.device_count() if device != "cpu" else 0
    processes, on_node = ranks.world_size(), ranks.node_size()
    if training.deepspeed_plugin is not None:
        return Launch(processes, on_node, device, visible, "DeepSpeed", int(training.deepspeed_plugin.zero_stage))
    if ranks.asked_for("FSDP") or training.fsdp:
        return Launch(processes, on_node, device, visible, "FSDP")
    return Launch(processes, on_node, device, visible, "DDP" if processes > 1 else "one process")


def check_launch(launch: Launch, model: ModelConfig) -> None:
    """Refuse what would fail hours later, or train something other than what was asked for.

    Raises:
        PreflightError: says what does not go together, why, and what to use instead.
    """
    if launch.processes == 1 and launch.visible > 1:
        raise PreflightError(
            f"this process sees {launch.visible} GPUs, but the launch has one process. To use all: `accelerate launch "
            f"--config_file accelerate_configs/multi_gpu.yaml --num_processes {launch.visible} ...`; to use one: set "
            "CUDA_VISIBLE_DEVICES=0."
        )
    if launch.device != "cpu" and launch.on_node > launch.visible:
        raise PreflightError(
            f"the launch has {launch.on_node} processes on this machine, which see {launch.visible} GPUs; two cannot "
            f"share one. Add `--num_processes {launch.visible}` to `accelerate launch`."
        )
    if launch.strategy == "FSDP" and launch.device == "cpu":
        raise PreflightError(
            "the launch configuration asks for FSDP on a CPU, where accelerate silently trains with DDP instead. "
            "Use accelerate_configs/cpu_2proc.yaml (DDP), or cpu_zero3.yaml, which divides the weights."
        )
    if model.load_in_8bit:
        raise PreflightError(
            "load_in_8bit: is not supported. LLM.int8 computes outlier columns separately and finds them over the "
            "whole batch, so a sample would depend on the rest of its batch. Use `load_in_4bit: true`."
        )
    if model.load_in_4bit:
        _check_4bit(launch, model)


def _check_4bit(launch: Launch, model: ModelConfig) -> None:
    if find_spec("bitsandbytes") is None:
        raise PreflightError('load_in_4bit: bitsandbytes is not installed; run `pip install -e ".[quantization]"`.')
    if launch.strategy == "DeepSpeed" and launch.stage == 3:
        raise PreflightError(
            "load_in_4bit: does not work with ZeRO-3, which cannot divide 4-bit weights: every process would hold the "
            "whole base, and adapters have been saved empty. Use accelerate_configs/multi_gpu.yaml or zero2.yaml if "
            "the 4-bit base fits on one GPU, else fsdp2_qlora.yaml."
        )
    storage = model.bnb_4bit_quant_storage
    if launch.strategy == "FSDP" and not (storage == model.dtype == "bfloat16"):
        raise PreflightError(
            "load_in_4bit: FSDP divides 4-bit weights only if they are stored in the dtype of all others; otherwise "
            f"every GPU would hold the whole base (found bnb_4bit_quant_storage {storage or 'uint8'}, dtype "
            f"{model.dtype}). Set `bnb_4bit_quant_storage: bfloat16` and `dtype: bfloat16`."
        )


def quantization(model: ModelConfig) -> dict[str, Any] | None:
    """How the base is quantised, alike in training, sampling and measuring, in every round; None if it is not."""
    if not model.load_in_4bit:
        return None
    return {"bits": 4, "type": model.bnb_4bit_quant_type, "double": bool(model.use_bnb_nested_quant)}


def precision(dtype: str, quantised: Mapping[str, Any] | None) -> str:
    """The precision of a base in words: ``bfloat16``, or ``4-bit nf4 (double), computed in bfloat16``."""
    if not quantised:
        return dtype
    double = " (double)" if quantised["double"] else ""
    return f"{quantised['bits']}-bit {quantised['type']}{double}, computed in {dtype}"
