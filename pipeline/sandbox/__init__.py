"""The embedded sandbox: a small closed world with a known ground truth, and a tiny language model trained on it."""

from pathlib import Path

from pipeline.sandbox.gold import Gold, gold
from pipeline.sandbox.world import prompts

__all__ = ["Gold", "gold", "model_path", "prompts"]


def model_path() -> Path:
    """Folder of the shipped base model, ready for ``from_pretrained``."""
    return Path(__file__).parent / "weights"
