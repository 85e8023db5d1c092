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
from pipeline.errors import EngineError, InputError, RunError
from pipeline.exporting.weights import Trained, find_trained, write_adapter, write_merged
from pipeline.inputs.model import model_digest
from pipeline.runs.files import file_sha256, read_json, write_json
from pipeline.runs.rundir import RunDir

TOKENS = torch.tensor([[4, 90, 31, 200, 7, 55, 12]])


@pytest.fixture
def trained(make_adapter: Callable[..., Adapter], sandbox_path: str) -> Trained:
    return Trained(make_adapter(1).path, sandbox_path, "sandbox", None, "float32", "float32")


@torch.inference_mode()
def logits(folder: Path | str, adapter: Path | None = None, dtype: str = "float32") -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    return model.eval()(input_ids=TOKENS).logits.float()


def make_run(folder: Path, trained: Trained, named: str, base: Path) -> RunDir:
    """A run directory as far as an export looks at it; its recipe calls the base ``named``."""
    run = RunDir(folder)
    shutil.copytree(trained.adapter, run.adapter_dir(1))
    path = run.adapter_dir(1) / "adapter_config.json"
    write_json(path, read_json(path) | {"base_model_name_or_path": str(base)})
    digests = {file.name: file_sha256(file) for file in run.adapter_dir(1).iterdir() if file.name != "README.md"}
    manifest = {"outputs": {"adapter": digests}, "engine": {"model": named, "dtype": "float32"}}
    write_json(run.stage_dir(1, "distill") / "manifest.json", manifest)
    write_json(run.resolved, {"model_revision": "main", "dtype": "float32"})
    write_json(run.inputs, {"model": model_digest(str(base), "main")})
    return run


def test_what_a_round_trained_is_found_with_its_base(trained: Trained, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trained, "sandbox", Path(trained.base))
    found = find_trained(run, 1)
    assert found == trained._replace(adapter=run.adapter_dir(1))
    assert found.base_is_local


def test_a_base_on_the_hub_keeps_its_revision(trained: Trained, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trained, "org/base", Path("org/base"))
    found = find_trained(run, 1)
    assert (found.base, found.revision, found.base_is_local) == ("org/base", "main", False)


def test_a_server_keeps_its_precision_to_itself(trained: Trained, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trained, "sandbox", Path(trained.base))
    path = run.stage_dir(1, "distill") / "manifest.json"
    write_json(path, read_json(path) | {"engine": {"name": "server", "model": "sandbox", "quantization": None}})
    found = find_trained(run, 1)
    assert (found.dtype, found.measured_in) == ("float32", None)


def test_a_base_named_from_another_folder_is_still_found(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.base, tmp_path / "models" / "tiny")
    run = make_run(tmp_path / "run", trained, "models/tiny", tmp_path / "models" / "tiny")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where models/tiny would be a Hub id
    assert find_trained(run, 1).base == str(tmp_path / "models" / "tiny")
    (tmp_path / "models").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="models/tiny: no such folder"):
        find_trained(run, 1)


def test_round_0_another_base_and_damage_are_refused(trained: Trained, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(trained.base, base)
    run = make_run(tmp_path / "run", trained, str(base), base)
    with pytest.raises(InputError, match="round 0 is the untouched base"):
        find_trained(run, 0)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match="is not the base that"):
        find_trained(run, 1)
    (run.adapter_dir(1) / "adapter_model.safetensors").unlink()
    with pytest.raises(RunError, match=r"adapter_model\.safetensors: missing or damaged"):
        find_trained(run, 1)


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
