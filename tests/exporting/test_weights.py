"""Adapters copied and merged, in their own precision and on their own base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.engines.base import Adapter
from pipeline.errors import EngineError, InputError
from pipeline.exporting.weights import Trained, write_adapter, write_merged

TOKENS = torch.tensor([[4, 90, 31, 200, 7, 55, 12]])


@pytest.fixture
def trained(make_adapter: Callable[..., Adapter], sandbox_path: str) -> Trained:
    return Trained(make_adapter(1).path, sandbox_path, "sandbox", None, "float32")


@torch.inference_mode()
def logits(folder: Path | str, adapter: Path | None = None, dtype: str = "float32") -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    return model.eval()(input_ids=TOKENS).logits.float()


def test_merged_is_base_and_adapter_in_one(trained: Trained, tmp_path: Path) -> None:
    write_merged(trained, tmp_path / "merged")
    together = logits(trained.base, trained.adapter)
    assert (together - logits(trained.base)).abs().max() > 0.5
    assert (logits(tmp_path / "merged") - together).abs().max() < 1e-4
    assert not list((tmp_path / "merged").glob("adapter_*"))


def test_a_bf16_run_is_merged_in_bf16(trained: Trained, tmp_path: Path) -> None:
    write_merged(trained._replace(dtype="bfloat16"), tmp_path / "merged")
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    # Weights have 8 bits of precision, and the logits' spread is about 5.
    gap = logits(tmp_path / "merged", dtype="bfloat16") - logits(trained.base, trained.adapter)
    assert gap.abs().mean() < 0.05


def test_an_adapter_names_the_base_that_it_belongs_to(trained: Trained, tmp_path: Path) -> None:
    write_adapter(trained._replace(base="org/base", revision="abc"), tmp_path / "a", None)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "abc")
    write_adapter(trained, tmp_path / "b", "org/published")
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/published", None)
    weights = "adapter_model.safetensors"
    assert (tmp_path / "b" / weights).read_bytes() == (trained.adapter / weights).read_bytes()


def test_what_is_no_data_stays_behind(trained: Trained, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained.adapter, adapter)
    (adapter / "training_args.bin").write_bytes(b"\x80\x04.")
    (adapter / "notes.py").write_text("import os")
    write_adapter(trained._replace(adapter=adapter), tmp_path / "out", None)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_nothing_is_merged_into_quantised_weights(trained: Trained, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(trained.base, base)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="its weights are quantised, and a LoRA merged into quantised weights"):
        write_merged(trained._replace(base=str(base), base_name="my-4bit"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base_is_refused(trained: Trained, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained.adapter, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    with pytest.raises(EngineError, match="sandbox: cannot be merged with"):
        write_merged(trained._replace(adapter=adapter), tmp_path / "merged")
