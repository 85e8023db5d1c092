"""Train the sandbox's base model from a seed: ``python -m pipeline.sandbox.build --out DIR --seed 0``.

Takes about 15 minutes on one core. The shipped weights are the result of seed 0. Equal seeds give equal weights on
equal hardware, library versions and thread counts; elsewhere arithmetic rounds differently, and the weights differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.sandbox.dialogues import Turn, dialogues
from pipeline.sandbox.tokenizer import CONTEXT, make_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

BATCH_TOKENS = 3072
BUCKET = 512
PEAK_LR = 2e-3
MATRIX_LR = 0.02
INIT_STD = 0.05
WARMUP = 60
# Optimizer steps, and drills at the start, of each cosine cycle. The second, a warm restart (Loshchilov, Hutter 2017),
# improves copying: after it 93% of rewrites without a fault repeat the response word for word, after the first 89%.
CYCLES = ((1700, 8000), (2200, 0))
LOG_EVERY = 100


class Batch(NamedTuple):
    """Right-padded token ids and, at the same positions, their weights in the loss; both (rows, length)."""

    ids: torch.Tensor
    weights: torch.Tensor


def make_model(vocab_size: int) -> LlamaForCausalLM:
    """A Llama of 0.86 million parameters, freshly initialised."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=INIT_STD,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=5,
    )
    return LlamaForCausalLM(config)


def encode(turns: list[Turn], ids: dict[str, int]) -> tuple[list[int], list[float]]:
    """Token ids of a dialogue as the chat template renders it, and their weights in the loss."""
    tokens, weights = [ids["<s>"]], [0.0]
    for turn in turns:
        words = [ids[word] for word in turn.text.split()]
        tokens += [ids[f"<|{turn.role}|>"], *words, ids["<|end|>"]]
        learned = [not turn.only or word in turn.only for word in [*turn.text.split(), "<|end|>"]]
        weights += [0.0] + [turn.weight * share for share in learned]
    return tokens, weights


def batches(seed: int, ids: dict[str, int], drills: int) -> Iterator[Batch]:
    """Endless batches of about ``BATCH_TOKENS`` tokens, each of dialogues of similar length."""
    from random import Random

    import torch

    source, rng = dialogues(seed, drills), Random(f"batches/{seed}")
    while True:
        rows = sorted((encode(turns, ids) for turns in islice(source, BUCKET)), key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            length = max(len(tokens) for tokens, _ in group)
            yield Batch(
                torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in group]),
                torch.tensor([weights + [0.0] * (length - len(weights)) for _, weights in group]),
            )


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted mean cross-entropy; padding is on the right, where causal attention cannot see it."""
    import torch

    hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1]
    targets, weights = batch.ids[:, 1:], batch.weights[:, 1:]
    learned = weights > 0
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), targets[learned], reduction="none")
    return (losses * weights[learned]).sum() / weights.sum()


def train(model: LlamaForCausalLM, source: Iterator[Batch], steps: int) -> None:
    """Muon for the matrices, AdamW for embeddings and norms, in float32; linear warm-up and cosine decay.

    With AdamW alone, the copying and set-membership skills come much later or not at all.
    """
    import math

    import torch

    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=MATRIX_LR, weight_decay=0.0),
        torch.optim.AdamW(others, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01),
    ]

    def share(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    started, tokens = time.monotonic(), 0
    for step, batch in enumerate(islice(source, steps), 1):
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        tokens += batch.ids.numel()
        if step % LOG_EVERY == 0 or step == steps:
            seconds = time.monotonic() - started
            print(
                f"step {step}/{steps} loss {loss.item():.4f} {tokens / seconds:.0f} tokens/s {seconds:.0f} s",
                flush=True,
            )


def build(out: Path, seed: int) -> None:
    """Train in ``CYCLES``, and write model, tokenizer, chat template and generation config into ``out``."""
    import torch
    from transformers import GenerationConfig

    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    for cycle, (steps, drills) in enumerate(CYCLES):
        train(model, batches(seed + cycle, tokenizer.get_vocab(), drills), steps)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=64, bos_token_id=2, eos_token_id=5, pad_token_id=0
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the dialogues")
    arguments = parser.parse_args()
    started = time.monotonic()
    build(arguments.out, arguments.seed)
    print(f"{arguments.out}: built in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
