"""Decoding with rows that come and go, beside transformers' own `generate` one prompt at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
)

from pipeline.engines.base import Sampling
from pipeline.engines.decoding import Prompt, sample
from pipeline.engines.prefill import Model, left_padded
from pipeline.engines.prefixes import Prefixes
from pipeline.engines.window import n_window_layers

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS = {
    "all columns": lambda: LlamaConfig(**SIZES),
    "a sliding window": lambda: MistralConfig(**SIZES, sliding_window=8),
    "both by turns": lambda: Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "another memory": lambda: Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
}
ENDS = tuple(range(2, 97, 12))
NEW = 40


def random_model(config: PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(5)  # or every answer would be one token over and over
    return model


ORDERS: dict[str, Any] = {
    "longest first": list,
    "shortest first": lambda prompts: prompts[::-1],
    "any": lambda prompts: prompts[1::2] + prompts[::2],
}


def prompts_of(n: int, order: str = "longest first") -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = sorted(torch.randint(3, 60, (n,), generator=generator).tolist(), reverse=True)
    return list(ORDERS[order]([torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]))


def seeded(prompts: list[list[int]]) -> list[Prompt]:
    return [Prompt(tokens, seed) for seed, tokens in enumerate(prompts)]


def count_read(model: Any) -> list[int]:
    """The tokens, padding included, of every pass that reads more than one column."""
    read: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].numel()) if given["input_ids"].shape[1] > 1 else None,
        with_kwargs=True,
    )
    return read


@pytest.mark.parametrize(("at_once", "padding"), [(1 << 15, 256), (64, 256), (1 << 15, 20), (64, 0)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_answers_are_those_of_one_prompt_at_a_time(
    name: str, order: str, at_once: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engines.prefill.READ_AT_ONCE", at_once)
    monkeypatch.setattr("pipeline.engines.prefill._PADDING", padding)
    model, prompts = random_model(CONFIGS[name]()), prompts_of(16, order)
    expected = []
    for prompt in prompts:
        output = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW, eos_token_id=list(ENDS))
        expected.append(output[0, len(prompt) :].tolist())
    lengths = {len(answer) for answer in expected}
    assert len(lengths) > 3 and max(lengths) == NEW > min(lengths)
    for batch_size in (1, 4, 30):
        assert sample(Model(model, ENDS, 0), seeded(prompts), Sampling(0.0, 1.0, NEW), batch_size) == expected


def test_which_memories_can_lie_side_by_side() -> None:
    assert {name: n_window_layers(config()) for name, config in CONFIGS.items()} == {
        "all columns": 2,
        "a sliding window": 2,
        "both by turns": 2,
        "another memory": None,
    }


def test_sampled_answers_do_not_depend_on_the_batch() -> None:
    model, prompts = random_model(LlamaConfig(**SIZES)), prompts_of(40)
    model = model.double()  # so that rounding decides no draw
    alone = sample(Model(model, ENDS, 0), seeded(prompts), Sampling(1.0, 0.9, NEW), 1)
    for batch_size in (3, 8, 64):
        assert sample(Model(model, ENDS, 0), seeded(prompts), Sampling(1.0, 0.9, NEW), batch_size) == alone
    assert len({tuple(answer) for answer in alone}) > 30


def test_the_batch_stays_full_while_prompts_wait() -> None:
    model, prompts = random_model(LlamaConfig(**SIZES)), prompts_of(64)
    rows: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, given: rows.append(given["input_ids"].shape[0]) if given["input_ids"].shape[1] == 1 else None,
        with_kwargs=True,
    )
    answers = sample(Model(model, ENDS, 0), seeded(prompts), Sampling(1.0, 1.0, NEW), 8)
    drawn_by_steps = sum(len(answer) - 1 for answer in answers)  # first tokens come with the prompts
    assert max(rows) == 8
    assert drawn_by_steps > 0.75 * sum(rows)


def test_shortest_first_attention_reads_few_masked_columns() -> None:
    read = {}
    for order in ORDERS:
        model, prompts = random_model(LlamaConfig(**SIZES)), prompts_of(64, order)
        filled: list[tuple[int, int]] = []
        model.register_forward_pre_hook(
            lambda _, args, given, filled=filled: filled.append(
                (int(given["attention_mask"].sum()), given["attention_mask"].numel())
            ),
            with_kwargs=True,
        )
        sample(Model(model, ENDS, 0), seeded(prompts), Sampling(1.0, 1.0, NEW), 8)
        read[order] = sum(used for used, _ in filled) / sum(columns for _, columns in filled)
    assert read["shortest first"] > 0.8 > max(read["longest first"], read["any"])


def test_rows_end_at_the_right() -> None:
    tokens, mask = left_padded([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert tokens.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_equal_prompts_are_read_once_and_answered_by_their_own_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(LlamaConfig(**SIZES)).double()
    read = count_read(model)
    monkeypatch.setattr("pipeline.engines.prefill._PADDING", 10_000)  # so that all are read at once
    prompts = [Prompt(tokens, 10 * i + sample_) for i, tokens in enumerate(prompts_of(6)) for sample_ in range(4)]
    together = sample(Model(model, ENDS, 0), prompts, Sampling(1.0, 1.0, NEW), 24)
    assert sum(read) == 6 * len(prompts[0].tokens)
    assert together == sample(Model(model, ENDS, 0), prompts, Sampling(1.0, 1.0, NEW), 1)
    assert len({tuple(answer) for answer in together}) > 20


def test_prompts_of_similar_lengths_are_read_together() -> None:
    model = random_model(LlamaConfig(**SIZES))
    read, given, once = count_read(model), Model(model, ENDS, 0), Sampling(0.0, 1.0, 1)
    for lengths, padded in (
        ([400, 380, 30, 29, 28], [2 * 400, 3 * 30]),
        ([60, 59, 58, 57], [4 * 60]),
        ([400, 300, 200, 100], [2 * 400, 2 * 200]),
    ):
        sample(given, [Prompt([5 + i, *[7] * (n - 1)], i) for i, n in enumerate(lengths)], once, 8)
        assert read == padded
        read.clear()


@pytest.mark.parametrize("batch_size", [1, 5, 16])
@pytest.mark.parametrize("padding", [0, 40, 256])
def test_dialogues_that_go_on_are_read_on_and_answered_alike(
    batch_size: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engines.prefill._PADDING", padding)
    model = random_model(LlamaConfig(**SIZES)).double()
    given, prefixes, sampling = Model(model, ENDS, 0), Prefixes(2**24), Sampling(1.0, 1.0, NEW)
    first = [Prompt(tokens * 3, seed, goes_on=True) for seed, tokens in enumerate(prompts_of(16))]
    answers = sample(given, first, sampling, batch_size, prefixes)
    assert answers == sample(given, first, sampling, batch_size), "keeping changes nothing"
    on = [
        Prompt([*one.tokens, *answer, *range(5, 5 + 3 * (seed % 4 + 1))], 100 + seed)
        for seed, (one, answer) in enumerate(zip(first, answers, strict=True))
    ]
    on.sort(key=lambda one: -len(one.tokens))
    read = count_read(model)
    found = sample(given, on, sampling, batch_size, prefixes)
    on_what_is_new = sum(read)
    read.clear()
    assert found == sample(given, on, sampling, batch_size)
    assert len({len(answer) for answer in found}) > 3
    assert on_what_is_new < 0.3 * sum(read)


def test_what_does_not_fit_is_read_whole() -> None:
    model = random_model(LlamaConfig(**SIZES)).double()
    given, sampling = Model(model, ENDS, 0), Sampling(0.0, 1.0, NEW)
    first = [Prompt(tokens, seed, goes_on=True) for seed, tokens in enumerate(prompts_of(8))]
    of_a_token = 2 * 2 * 2 * 8 * 8  # layers, keys and values, heads, width, bytes
    small = Prefixes(of_a_token * 80)
    answers = sample(given, first, sampling, 4, small)
    on = [Prompt([*one.tokens, *answer, 7, 9], 1) for one, answer in zip(first, answers, strict=True)]
    assert [small.longest(one.tokens).length > 0 for one in on] == [True] + [False] * 7
    on.sort(key=lambda one: -len(one.tokens))
    assert sample(given, on, sampling, 4, small) == sample(given, on, sampling, 4)
