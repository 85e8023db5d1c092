"""Train twice in one process and print how many values of tensors are in memory after each, for the tests."""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path

import torch

from pipeline import command
from pipeline.inputs.model import resolve_model
from pipeline.runs import ranks
from pipeline.training.sft import Learner, train

ROWS = [
    {"prompt": [{"role": "user", "content": word}], "completion": [{"role": "assistant", "content": f"{word} ."}]}
    for word in ("bread", "paint", "garden", "water", "soap", "tea", "cat", "song")
]


def held() -> int:
    gc.collect()
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values()) // 4


def main() -> None:
    parsed = command.parse(sys.argv[1:], command.StageOptions)
    learner = Learner(resolve_model("sandbox"), parsed.model, None, None)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(ranks.from_main(name))
        for turn in ("one", "two"):
            train(ROWS, learner, parsed.training, work_dir=folder / turn, adapter_dir=folder / f"{turn}-a", seed=0)
            found.append(held())
        ranks.barrier()
    everywhere = ranks.gather(found)
    if ranks.is_main():
        print(f"held: {everywhere}")


if __name__ == "__main__":
    main()
