from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, FalconMambaConfig, Phi3Config, PretrainedConfig

from pipeline.engines import local
from pipeline.engines.base import Adapter, Completion, Request, Sampling, ScoreRequest
from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine
from pipeline.engines.prefill import left_padded
from pipeline.errors import EngineError, InputError
from pipeline.sandbox import prompts

SAMPLING = Sampling(1.0, 1.0, 48)
GREEDY = Sampling(0.0, 1.0, 48)


def requests_of(n: int) -> list[Request]:
    """Dialogues of one, three and five turns, so that lengths differ by far."""
    texts = [row["prompt"] for row in prompts("probe", 3 * n)]
    found = []
    for i in range(n):
        messages = []
        for text in texts[3 * i : 3 * i + 1 + i % 3]:
            messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "i can not help ."}]
        found.append(Request(messages[:-1], seed=1000 + i))
    return found


def tokens(completions: Sequence[Completion]) -> list[list[int]]:
    return [completion.token_ids for completion in completions]


@pytest.fixture(scope="module")
def asked() -> list[Request]:
    return requests_of(24)


@pytest.fixture(scope="module")
def sampled(sandbox_engine: LocalEngine, asked: list[Request]) -> list[Completion]:
    return sandbox_engine.generate(asked, SAMPLING, None)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def engine_of(path: str | Path, batch_size: int, template: str | None = None) -> LocalEngine:
    return LocalEngine(str(path), revision=None, dtype="float32", chat_template=template, batch_size=batch_size)


# -- sampling ------------------------------------------------------------------------------------------------


def test_samples_are_not_degenerate(sampled: list[Completion]) -> None:
    assert len({tuple(row) for row in tokens(sampled)}) > 12
    assert len({len(row) for row in tokens(sampled)}) > 4


def test_a_sample_does_not_depend_on_request_order(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    order = np.random.default_rng(0).permutation(len(asked))
    shuffled = sandbox_engine.generate([asked[i] for i in order], SAMPLING, None)
    assert shuffled == [sampled[i] for i in order]


def test_a_sample_does_not_depend_on_which_others_are_there(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    for chosen in ([0, 5, 6, 7, 20], [23], list(range(1, 24, 2))):
        assert sandbox_engine.generate([asked[i] for i in chosen], SAMPLING, None) == [sampled[i] for i in chosen]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_sample_does_not_depend_on_the_batch_size(
    batch_size: int, sandbox_path: str, asked: list[Request], sampled: list[Completion]
) -> None:
    assert engine_of(sandbox_path, batch_size).generate(asked, SAMPLING, None) == sampled


@pytest.mark.usefixtures("two_threads")
def test_a_sample_does_not_depend_on_the_number_of_threads(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    assert sandbox_engine.generate(asked, SAMPLING, None) == sampled


def test_other_seeds_give_other_samples(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    again = sandbox_engine.generate([r._replace(seed=r.seed + 10_000) for r in asked], SAMPLING, None)
    assert sum(a != b for a, b in zip(tokens(again), tokens(sampled), strict=True)) > len(asked) / 2


def test_finish_reasons_and_text(sandbox_engine: LocalEngine, asked: list[Request]) -> None:
    eos = sandbox_engine.tokenizer.eos_token_id
    long, short = (sandbox_engine.generate(asked, Sampling(1.0, 1.0, n), None) for n in (96, 4))
    for completion in [*long, *short]:
        stopped = completion.token_ids[-1] == eos
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert eos not in completion.token_ids[:-1], "nothing follows the end of the turn"
        assert completion.error is None
        kept = [t for t in completion.token_ids if t not in sandbox_engine.tokenizer.all_special_ids]
        assert completion.text == sandbox_engine.tokenizer.decode(kept).strip()
    assert any(c.finish_reason == "stop" for c in long)
    assert all(len(c.token_ids) == 4 for c in short if c.finish_reason == "length")
    assert any(c.finish_reason == "length" for c in short)
    for one, other in zip(short, long, strict=True):
        assert other.token_ids[:4] == one.token_ids, "a lower limit only cuts"


def test_prompt_tokens_are_counted(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    lengths = [len(encode(request.messages, sandbox_engine.tokenizer)) for request in asked]
    assert [completion.prompt_tokens for completion in sampled] == lengths


def test_a_prompt_that_leaves_no_room_is_refused_and_never_cut(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    def of_length(n: int) -> Request:  # <s> <|user|> words <|end|> <|assistant|>
        return Request([{"role": "user", "content": "paint " * (n - 4)}], 5)

    given = [of_length(512 - 48), of_length(512 - 47), of_length(700), *asked[:3]]
    fits, over, far_over, *others = sandbox_engine.generate(given, SAMPLING, None)
    assert fits.finish_reason in ("stop", "length") and fits.prompt_tokens == 464
    for completion, length in ((over, 465), (far_over, 700)):
        assert (completion.finish_reason, completion.text, completion.token_ids) == ("prompt_too_long", "", [])
        assert completion.prompt_tokens == length
        assert completion.error is not None and str(length) in completion.error and "512" in completion.error
    assert others == sampled[:3], "the others are answered as if it were not there"


def test_what_was_to_be_continued_is_forgotten_once_it_has_been(sandbox_path: str, asked: list[Request]) -> None:
    room = 1 << 28
    engine = LocalEngine(
        sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=8, prefix_memory=room
    )
    prefixes = engine._prefixes
    assert prefixes is not None and prefixes.has_room(room)
    engine.generate([request._replace(goes_on=True) for request in asked], GREEDY, None)
    assert not prefixes.has_room(room)
    engine.generate(asked, GREEDY, None)
    assert prefixes.has_room(room)


def test_no_requests(sandbox_engine: LocalEngine) -> None:
    assert sandbox_engine.generate([], SAMPLING, None) == []
    assert sandbox_engine.score([], None) == []


def greedy_reference(path: str | Path, prompts_: Sequence[list[int]], new: int) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    found = []
    for prompt in prompts_:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, temperature=None, top_k=None, max_new_tokens=new
        )
        found.append(output[0, len(prompt) :].tolist())
    return found


def test_greedy_is_transformers_own(sandbox_engine: LocalEngine, sandbox_path: str, asked: list[Request]) -> None:
    encoded = [encode(request.messages, sandbox_engine.tokenizer) for request in asked[:8]]
    assert len({len(prompt) for prompt in encoded}) >= 4
    assert tokens(sandbox_engine.generate(asked[:8], GREEDY, None)) == greedy_reference(sandbox_path, encoded, 48)


def test_greedy_is_transformers_own_on_a_real_model(shared_data: Path, project: Path) -> None:
    path = shared_data / "models" / "stories260K-hf"
    template = (project / "constitutions" / "templates" / "chat_plain.jinja").read_text()
    engine = engine_of(path, 8, template)
    texts = [
        "Hi.",
        "Once upon a time there was a little dog.",
        "Tell me a story about " + "a very old tree " * 6,
        "One day",
    ]
    given = [Request([{"role": "user", "content": text}], i) for i, text in enumerate(texts)]
    encoded = [encode(request.messages, engine.tokenizer) for request in given]
    assert tokens(engine.generate(given, Sampling(0.0, 1.0, 24), None)) == greedy_reference(path, encoded, 24)


# -- scoring -------------------------------------------------------------------------------------------------


def direct_scores(model: Any, prompt: list[int], continuation: list[int]) -> list[float]:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + continuation])).logits[0].double()
    log_p = logits.log_softmax(-1)
    return [log_p[len(prompt) + i - 1, token].item() for i, token in enumerate(continuation)]


def test_scores_are_transformers_own(
    sandbox_engine: LocalEngine, sandbox_path: str, asked: list[Request], sampled: list[Completion]
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(sandbox_path, dtype=torch.float32).eval()
    given = [ScoreRequest(r.messages, c.token_ids) for r, c in zip(asked, sampled, strict=True)]
    # One prompt with continuations of several lengths, side by side in a batch.
    given += [ScoreRequest(asked[0].messages, sampled[0].token_ids[:n]) for n in (1, 2, 5)]
    found = sandbox_engine.score(given, None)
    for request, row in zip(given, found, strict=True):
        prompt = encode(request.messages, sandbox_engine.tokenizer)
        assert row == pytest.approx(direct_scores(model, prompt, list(request.token_ids)), abs=1e-5)
    whole = found[0]
    for row, n in zip(found[-3:], (1, 2, 5), strict=True):
        assert row == pytest.approx(whole[:n], abs=1e-5), "what follows a token does not change its probability"


def test_few_tokens_at_a_time_score_the_same(
    sandbox_engine: LocalEngine,
    asked: list[Request],
    sampled: list[Completion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [ScoreRequest(r.messages, c.token_ids) for r, c in zip(asked, sampled, strict=True)]
    whole = sandbox_engine.score(given, None)
    passes: list[int] = []

    def padded(rows: Sequence[Sequence[int]], *rest: Any) -> Any:
        passes.append(len(rows) * max(map(len, rows)))
        return left_padded(rows, *rest)

    monkeypatch.setattr(local, "READ_AT_ONCE", 300)
    monkeypatch.setattr(local, "left_padded", padded)
    for one, other in zip(whole, sandbox_engine.score(given, None), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert len(passes) > 3 and max(passes) <= 300


def test_what_cannot_be_scored_is_empty(sandbox_engine: LocalEngine, asked: list[Request]) -> None:
    given = [
        ScoreRequest(asked[0].messages, []),
        ScoreRequest(asked[0].messages, [7] * 600),
        ScoreRequest(asked[0].messages, [7, 5]),
    ]
    nothing, too_long, scored = sandbox_engine.score(given, None)
    assert nothing == [] and too_long == []
    assert len(scored) == 2


def test_sampled_tokens_are_likely_under_their_own_scores(
    sandbox_engine: LocalEngine, asked: list[Request], sampled: list[Completion]
) -> None:
    # Sampling with a cache and padding, and scoring in one pass, must be of one distribution: under it the mean
    # surprise of its own samples is its mean entropy.
    rows = sandbox_engine.score(
        [ScoreRequest(r.messages, c.token_ids) for r, c in zip(asked, sampled, strict=True)], None
    )
    surprise = -np.concatenate(rows)
    assert surprise.mean() < 1.5
    shuffled = np.random.default_rng(0).permutation(np.concatenate(tokens(sampled)))
    wrong = sandbox_engine.score([ScoreRequest(asked[0].messages, shuffled[:48].tolist())], None)
    assert -np.mean(wrong[0]) > 2 * surprise.mean()


# -- adapters ------------------------------------------------------------------------------------------------


def test_adapters_are_worn_one_at_a_time_and_taken_off(
    sandbox_path: str, make_adapter: Callable[..., Adapter], asked: list[Request], sampled: list[Completion]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    given = [ScoreRequest(r.messages, c.token_ids) for r, c in zip(asked[:6], sampled[:6], strict=True)]
    one, other = make_adapter(1), make_adapter(2)
    engine = engine_of(sandbox_path, 8)
    base = engine.score(given, None)

    def reference(adapter: Adapter) -> list[list[float]]:
        bare = AutoModelForCausalLM.from_pretrained(sandbox_path, dtype=torch.float32)
        model = PeftModel.from_pretrained(bare, str(adapter.path)).eval()
        return [direct_scores(model, encode(r.messages, engine.tokenizer), list(r.token_ids)) for r in given]

    worn = {
        name: engine.score(given, adapter)
        for name, adapter in {"one": one, "other": other, "one again": one, "base again": None}.items()
    }
    for name, adapter in {"one": one, "other": other}.items():
        for row, expected in zip(worn[name], reference(adapter), strict=True):
            assert row == pytest.approx(expected, abs=1e-4), name
        assert np.abs(np.concatenate(worn[name]) - np.concatenate(base)).max() > 0.05
    assert worn["one again"] == worn["one"]
    assert worn["base again"] == base, "exactly the base, to the last bit"
    assert np.abs(np.concatenate(worn["one"]) - np.concatenate(worn["other"])).max() > 0.05
    assert engine.generate(asked[:6], SAMPLING, None) == engine_of(sandbox_path, 8).generate(asked[:6], SAMPLING, None)
    assert engine.generate(asked, SAMPLING, other) != engine.generate(asked, SAMPLING, None)


def test_a_sample_under_an_adapter_does_not_depend_on_the_batch(
    sandbox_path: str, make_adapter: Callable[..., Adapter], asked: list[Request]
) -> None:
    adapter = make_adapter(3)
    whole = engine_of(sandbox_path, 16).generate(asked, SAMPLING, adapter)
    alone = engine_of(sandbox_path, 1).generate(asked[4:9], SAMPLING, adapter)
    assert alone == whole[4:9]


# -- loading -------------------------------------------------------------------------------------------------


def test_a_model_without_a_chat_template_says_how_to_give_one(shared_data: Path) -> None:
    with pytest.raises(InputError, match="chat_template_path"):
        engine_of(shared_data / "models" / "stories260K-hf", 4)


def test_a_folder_without_weights(tmp_path: Path, sandbox_path: str) -> None:
    (tmp_path / "config.json").write_text(Path(sandbox_path, "config.json").read_text())
    with pytest.raises(InputError, match=r"no \*\.safetensors weights"):
        engine_of(tmp_path, 4)


def test_damaged_weights(tmp_path: Path, sandbox_path: str) -> None:
    for file in Path(sandbox_path).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineError, match="model_name_or_path"):
        engine_of(tmp_path, 4)


def saved(config: PretrainedConfig, folder: Path, sandbox_path: str) -> Path:
    """A random model with the sandbox's tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((Path(sandbox_path) / name).read_bytes())
    return folder


def test_a_model_whose_state_is_no_cache_is_refused(tmp_path: Path, sandbox_path: str) -> None:
    config = FalconMambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)
    with pytest.raises(EngineError, match=r"FalconMambaForCausalLM keeps what it has read in a state of its own"):
        engine_of(saved(config, tmp_path, sandbox_path), 4)


def test_frequencies_that_depend_on_the_longest_row_limit_the_context(tmp_path: Path, sandbox_path: str) -> None:
    config = Phi3Config(
        vocab_size=1024,
        eos_token_id=2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_scaling={"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
        pad_token_id=0,
    )
    engine = engine_of(saved(config, tmp_path, sandbox_path), 4)
    asked = [Request([{"role": "user", "content": "paint " * n}], n) for n in (4, 12, 44, 45)]
    sampling = Sampling(0.0, 1.0, 16)
    together = engine.generate(asked, sampling, None)
    assert [one.finish_reason == "prompt_too_long" for one in together] == [False, False, False, True]
    assert tokens(together) == [tokens(engine.generate([one], sampling, None))[0] for one in asked]


def test_seconds_are_counted(sandbox_engine: LocalEngine, asked: list[Request]) -> None:
    before = sandbox_engine.seconds
    sandbox_engine.generate(asked[:2], GREEDY, None)
    middle = sandbox_engine.seconds
    sandbox_engine.score([ScoreRequest(asked[0].messages, [7])], None)
    assert before < middle < sandbox_engine.seconds
