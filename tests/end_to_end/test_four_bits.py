"""A 4-bit base: quantised in training, sampling and measuring alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import attempt, run, write_recipe
from launches import losses, weights

pytestmark = [pytest.mark.devices, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("launcher", ["cpu", "cpu_zero2"])
def test_a_round_on_a_four_bit_base(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    if "zero" in launcher:
        pytest.importorskip("deepspeed")
    recipe = write_recipe(tmp_path, rounds=1, extra="load_in_4bit: true\nuse_bnb_nested_quant: true\n")
    less = ("--num_revisions", "1", "--probe_samples", "1")  # 4-bit sampling on a CPU is slow
    run("iterate", "--config", recipe, "--run_dir", tmp_path / "run", *less, launcher=launcher)
    stated = {"bits": 4, "type": "nf4", "double": True}
    manifests = sorted((tmp_path / "run").rglob("*manifest.json"))
    assert len(manifests) > 6
    for path in manifests:
        assert json.loads(path.read_text())["engine"]["quantization"] == stated, path
    # Round 0 was measured on the base as it is trained: 4-bit, which is not what full precision samples.
    full = write_recipe(tmp_path, rounds=0)
    run("iterate", "--config", full, "--run_dir", tmp_path / "full", *less)
    samples = [(tmp_path / n / "round-00" / "measure" / "samples.parquet").read_bytes() for n in ("run", "full")]
    assert samples[0] != samples[1]
    curve = losses(tmp_path / "run", 1)
    assert sum(curve[-3:]) < sum(curve[:3])
    assert all(tensor.any() for name, tensor in weights(tmp_path / "run", 1).items() if "lora_B" in name)


def test_what_four_bits_cannot_do_is_said_before_anything_is_done(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    recipe = write_recipe(tmp_path, rounds=1, extra="load_in_4bit: true\n")
    refused = attempt("iterate", "--config", recipe, "--run_dir", tmp_path / "run", launcher="cpu_zero3")
    assert refused.returncode
    assert "load_in_4bit: does not work with ZeRO-3" in refused.stdout
    assert not (tmp_path / "run").exists()
