"""Train the sandbox's base model from a seed: ``python -m pipeline.sandbox.build --out DIR --seed 0``.

Takes about 14 minutes on one core. Equal seeds give equal weights on equal hardware, library versions and
thread counts; elsewhere the arithmetic rounds differently and the weights differ, but not the skills.
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

BATCH_TOKENS = 4096
BUCKET = 512
PEAK_LR = 3e-3
WARMUP = 100
LOG_EVERY = 100


class Batch(NamedTuple):
    """Right-padded token ids and, at the same places, which of them the loss looks at; both (rows, length)."""

    ids: torch.Tensor
    learned: torch.Tensor


def make_model(vocab_size: int) -> LlamaForCausalLM:
    """A Llama of 0.86 million parameters, freshly initialised."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=320, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True, pad_token_id=0, bos_token_id=2, eos_token_id=5,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def encode(turns: list[Turn], ids: dict[str, int]) -> tuple[list[int], list[bool]]:
    """Token ids of a dialogue as the chat template renders it, and which of them are learned."""
    tokens, learned = [ids["<s>"]], [False]
    for turn in turns:
        words = [ids[word] for word in turn.text.split()]
        tokens += [ids[f"<|{turn.role}|>"], *words, ids["<|end|>"]]
        learned += [False] + [turn.learned] * (len(words) + 1)
    return tokens, learned


def batches(seed: int, ids: dict[str, int]) -> Iterator[Batch]:
    """Endless batches of about ``BATCH_TOKENS`` tokens, each of dialogues of similar length."""
    from random import Random

    import torch

    source, rng = dialogues(seed), Random(f"batches/{seed}")
    while True:
        rows = sorted((encode(turns, ids) for turns in islice(source, BUCKET)), key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[bool]]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            length = max(len(tokens) for tokens, _ in group)
            yield Batch(
                torch.tensor([tokens + [0] * (length - len(tokens)) for tokens, _ in group]),
                torch.tensor([learned + [False] * (length - len(learned)) for _, learned in group]),
            )


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the learned tokens; padding is on the right, where causal attention cannot see it."""
    import torch

    hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1]
    targets, learned = batch.ids[:, 1:], batch.learned[:, 1:]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), targets[learned])


def train(model: LlamaForCausalLM, source: Iterator[Batch], steps: int) -> None:
    """AdamW with linear warm-up and cosine decay, in float32."""
    import math

    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1.0, (t + 1) / WARMUP) * (0.01 + 0.99 * (1 + math.cos(math.pi * t / steps)) / 2)
    )
    started, tokens = time.monotonic(), 0
    for step, batch in enumerate(islice(source, steps), 1):
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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


def build(out: Path, seed: int, steps: int) -> None:
    """Train, and write model, tokenizer, chat template and generation config into ``out``."""
    import torch
    from transformers import GenerationConfig

    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    train(model, batches(seed, tokenizer.get_vocab()), steps)
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
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps")
    arguments = parser.parse_args()
    started = time.monotonic()
    build(arguments.out, arguments.seed, arguments.steps)
    print(f"{arguments.out}: built in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
