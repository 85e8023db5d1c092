"""What every test shares. The environment is set here, before any test module can import torch or the hub client."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from pipeline.engines.base import Adapter
    from pipeline.engines.local import LocalEngine

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, the longest file at their head, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: ("slow" not in item.keywords, item.path.name != "test_kill_and_resume.py"))


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the repository."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data and models, which the repository does not carry."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder}")
    return folder


@pytest.fixture(scope="session")
def sandbox_path() -> str:
    """Folder of the embedded model."""
    from pipeline.sandbox import model_path

    return str(model_path())


@pytest.fixture(scope="session")
def sandbox_engine(sandbox_path: str) -> LocalEngine:
    """The embedded model, decoding 8 rows together."""
    from pipeline.engines.local import LocalEngine

    return LocalEngine(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=8)


@pytest.fixture(scope="session")
def make_adapter(sandbox_path: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Adapter]:
    """Random LoRA adapters, for the embedded model or another: a seed and a scale of lora_B decide each."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from pipeline.engines.base import Adapter

    def make(seed: int, scale: float = 0.1, rank: int = 4, base_path: str = sandbox_path) -> Adapter:
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
        model = get_peft_model(
            base, LoraConfig(r=rank, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"])
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, scale)
        folder = tmp_path_factory.mktemp(f"adapter-{seed}")
        model.save_pretrained(folder)
        weights = folder / "adapter_model.safetensors"
        return Adapter(folder, hashlib.sha256(weights.read_bytes()).hexdigest())

    return make
