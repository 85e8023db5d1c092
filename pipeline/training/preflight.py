"""Checks before the first training step, on the rows as the trainer will see them, and after the last one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PreflightError
from pipeline.runs.rundir import WEIGHTS

IGNORED = -100
"""The label that torch's cross-entropy ignores."""


def check_training_rows(
    rows: Sequence[dict[str, Any]], prompts: Sequence[list[int]], tokenizer: Any, max_length: int | None
) -> None:
    """Check that the trainer's rows are what was meant.

    Args:
        rows: tokenised rows, ``input_ids`` and ``labels`` (-100 where the loss does not count).
        prompts: each row's prompt as the engine encodes it for sampling.
        tokenizer: the model's tokenizer.
        max_length: number of tokens after which the trainer cuts rows; None for no limit.

    Raises:
        PreflightError: beginning-of-sequence doubled; the prompt is not a prefix of the row, so training and
            sampling would differ; the loss covers prompt tokens or misses completion ones; the end of the
            turn is not learnt, so answers would not stop; a row would be cut.
    """
    if len(rows) != len(prompts):
        raise PreflightError(f"the trainer kept {len(rows)} of {len(prompts)} rows; it must train on all or none.")
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids, mask = list(row["input_ids"]), [label != IGNORED for label in row["labels"]]
        where = f"train.parquet row {number}"
        if max_length is not None and len(ids) >= max_length and _is_cut(ids, tokenizer):
            raise PreflightError(f"{where}: would be cut at max_length={max_length}; raise `max_length`.")
        bos = tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise PreflightError(
                f"{where}: begins with {tokenizer.bos_token} twice; the chat template and the tokenizer both add it. "
                "Remove it from one of them (`chat_template_path` sets another template)."
            )
        if ids[: len(prompt)] != prompt:
            raise PreflightError(
                f"{where}: the prompt is not a prefix of prompt and completion in this chat template, so the model "
                "would be trained on different prompts from those it is sampled with. Give a template that only "
                "appends (`chat_template_path`)."
            )
        if any(mask[: len(prompt)]) or not all(mask[len(prompt) :]):
            raise PreflightError(
                f"{where}: the loss must cover the completion and nothing else (completion_only_loss)."
            )
        if not _ends_turn(ids[len(prompt) :], tokenizer):
            raise PreflightError(
                f"{where}: the completion does not end with {tokenizer.eos_token!r}, so the model would not learn "
                "to stop. Give a chat template that ends every assistant turn with it (`chat_template_path`)."
            )


def _ends_turn(completion: Sequence[int], tokenizer: Any) -> bool:
    # Many templates close a turn with the end token and a line break, and the line break is never sampled.
    while completion and not tokenizer.decode(completion[-1]).strip():
        completion = completion[:-1]
    return bool(completion) and completion[-1] == tokenizer.eos_token_id


def _is_cut(ids: Sequence[int], tokenizer: Any) -> bool:
    return not _ends_turn(ids, tokenizer)


def check_trainable(model: Any) -> int:
    """Count the parameters that training can change.

    Raises:
        PreflightError: there are none.
    """
    # Sharded parameters (ZeRO-3) are empty until gathered and keep their size elsewhere.
    count = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
    if count == 0:
        raise PreflightError("no parameter can be trained: lora_target_modules matches no layer of this model.")
    return int(count)


def check_adapter(folder: Path) -> dict[str, int]:
    """Check that a saved adapter is whole and has learnt something; return its numbers of tensors and values.

    Raises:
        PreflightError: no tensors, empty or flattened ones (a sharded save gone wrong), values that are not
            finite, or B matrices that are all zero.
    """
    import torch
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.exists():
        raise PreflightError(f"{path}: the trainer saved no adapter weights.")
    tensors = load_file(path)
    matrices = ("lora_A", "lora_B", "lora_embedding_")  # DoRA's magnitudes are vectors
    odd = [
        name
        for name, tensor in tensors.items()
        if tensor.numel() == 0 or (tensor.ndim < 2 and any(matrix in name for matrix in matrices))
    ]
    if odd or not tensors:
        raise PreflightError(f"{path}: {odd[0] if odd else 'no tensor'} is not a whole matrix; the save lost shards.")
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise PreflightError(f"{path}: {broken[0]} holds values that are not finite; lower learning_rate.")
    if not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name):
        raise PreflightError(f"{path}: every lora_B is still zero, so training changed nothing; check learning_rate.")
    return {"tensors": len(tensors), "parameters": sum(tensor.numel() for tensor in tensors.values())}
