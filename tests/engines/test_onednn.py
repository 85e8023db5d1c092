"""Models with layers large enough for oneDNN: everything as transformers computes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pipeline.engines.base import Adapter, Request, Sampling, ScoreRequest
from pipeline.engines.chat import encode
from pipeline.engines.local import LocalEngine
from pipeline.engines.onednn import OneDnnLinear, use_onednn
from pipeline.sandbox import prompts

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()),
    reason="this PyTorch does not choose between MKL and oneDNN",
)
ASKED = [Request([{"role": "user", "content": row["prompt"]}], i) for i, row in enumerate(prompts("probe", 12))]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, sandbox_path: str) -> Path:
    """A Llama with the sandbox's words; of its layers only those that make keys and values are small."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("large")
    config = LlamaConfig.from_pretrained(
        sandbox_path, hidden_size=512, head_dim=128, num_key_value_heads=1, intermediate_size=640, num_hidden_layers=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(sandbox_path).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(large: Path, make_adapter: Callable[..., Adapter]) -> Adapter:
    return make_adapter(0, base_path=str(large))


def plain(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def engine_of(path: Path) -> LocalEngine:
    return LocalEngine(str(path), revision=None, dtype="float32", chat_template=None, batch_size=4)


def changed(model: nn.Module) -> set[str]:
    return {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, OneDnnLinear)}


def test_large_float32_layers_are_computed_by_onednn(large: Path) -> None:
    model = plain(large)
    use_onednn(model)
    assert changed(model) == {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}
    with torch.profiler.profile() as seen, torch.inference_mode():
        model(input_ids=torch.tensor([[7, 8, 9]]))
    calls = {event.key: event.count for event in seen.key_averages()}
    assert calls["mkldnn::_linear_pointwise"] == 2 * 5 + 1
    assert calls["aten::linear"] == 2 * 2, "keys and values are too small"
    in_half = plain(large, torch.bfloat16)
    use_onednn(in_half)
    assert not changed(in_half)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (1, 1), (5, 7), (2, 1)])
def test_products_are_those_of_a_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(512, 640, bias=bias), torch.randn(*shape, 512)
    with torch.inference_mode():
        expected = layer(inputs)
        use_onednn(layer)
        assert isinstance(layer, OneDnnLinear)
        torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_answers_and_scores_are_transformers_own(large: Path, adapter: Adapter) -> None:
    engine = engine_of(large)
    under_adapter = PeftModel.from_pretrained(plain(large), str(adapter.path)).eval()
    for worn, model in ((None, plain(large)), (adapter, under_adapter)):
        answers = engine.generate(ASKED, Sampling(0.0, 1.0, 24), worn)
        given = [ScoreRequest(r.messages, a.token_ids) for r, a in zip(ASKED, answers, strict=True)]
        for request, answer, found in zip(ASKED, answers, engine.score(given, worn), strict=True):
            prompt = encode(request.messages, engine.tokenizer)
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[*prompt, *answer.token_ids]])).logits[0, len(prompt) - 1 : -1]
            assert logits.argmax(-1).tolist() == answer.token_ids
            expected = logits.double().log_softmax(-1).max(-1).values.tolist()
            assert found == pytest.approx(expected, abs=1e-4)


def test_a_sample_does_not_depend_on_the_batch(large: Path, adapter: Adapter) -> None:
    engine, sampling = engine_of(large), Sampling(1.0, 1.0, 24)
    whole = engine.generate(ASKED, sampling, adapter)
    assert len({tuple(answer.token_ids) for answer in whole}) == len(ASKED)
    assert [engine.generate([request], sampling, adapter)[0] for request in ASKED] == whole
