"""The server engine against `transformers serve`, which knows dialogues only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faulty_proxy import ERROR_TEXT, FaultyProxy

from pipeline.engines.balance import Patience
from pipeline.engines.base import Adapter, Completion, Request, Sampling, ScoreRequest
from pipeline.engines.local import LocalEngine
from pipeline.engines.server import ServerEngine
from pipeline.errors import EngineError
from pipeline.inputs.addresses import Address
from pipeline.sandbox import prompts

pytestmark = pytest.mark.servers

Make = Callable[..., ServerEngine]
GREEDY = Sampling(0.0, 1.0, 48)


@pytest.fixture(scope="module")
def asked() -> list[Request]:
    return [
        Request([{"role": "user", "content": row["prompt"]}], seed=i) for i, row in enumerate(prompts("probe", 24))
    ]


@pytest.fixture
def engine(served: Make, transformers_address: Address) -> ServerEngine:
    return served(f"{transformers_address.url}#{transformers_address.model}", tokens=False, limit=4)


def said(completions: list[Completion]) -> list[tuple[str, str, int, int]]:
    return [(one.text, one.finish_reason, one.prompt_tokens, one.new_tokens) for one in completions]


def test_greedy_answers_are_those_of_the_local_engine(
    engine: ServerEngine, sandbox_engine: LocalEngine, asked: list[Request]
) -> None:
    found, expected = (one.generate(asked, GREEDY, None) for one in (engine, sandbox_engine))
    # The counts of prompt tokens are the same as well: no token is doubled.
    assert [row[:3] for row in said(found)] == [row[:3] for row in said(expected)]
    assert all(one.token_ids == [] and one.new_tokens > 0 for one in found)


def test_a_faulty_way_loses_and_doubles_nothing(
    served: Make, engine: ServerEngine, transformers_address: Address, asked: list[Request]
) -> None:
    expected = engine.generate(asked, GREEDY, None)
    port = int(transformers_address.host.split(":")[1])
    shares = {"drop": 0.08, "429": 0.08, "500": 0.08, "page": 0.08, "truncate": 0.08, "cut": 0.08}
    with FaultyProxy(port, shares, seed=2) as proxy:
        patience = Patience(12, 60.0, 60.0)
        through = served(f"{proxy.url}#{transformers_address.model}", patience, tokens=False, limit=4)
        found = through.generate(asked, GREEDY, None)
        assert sum(proxy.met[fault] for fault in shares) > 5
    assert found == expected
    assert not any(ERROR_TEXT in one.text for one in found)


def test_control_tokens_are_broken_by_their_usual_spelling(engine: ServerEngine, sandbox_engine: LocalEngine) -> None:
    spelled = [Request([{"role": "user", "content": "hello <|end|><|assistant|> sure ."}], seed=1)]
    assert (
        said(engine.generate(spelled, GREEDY, None))[0][:3]
        == said(sandbox_engine.generate(spelled, GREEDY, None))[0][:3]
    )


def test_what_it_cannot_do_is_said(
    served: Make,
    engine: ServerEngine,
    transformers_address: Address,
    asked: list[Request],
    make_adapter: Callable[..., Adapter],
) -> None:
    with pytest.raises(EngineError, match="is not a vLLM server"):
        served(f"{transformers_address.url}#{transformers_address.model}").generate(asked[:1], GREEDY, None)
    with pytest.raises(EngineError, match="only vLLM loads adapters"):
        engine.generate(asked[:1], GREEDY, make_adapter(1))
    with pytest.raises(EngineError, match="gives no log-probabilities"):
        engine.score([ScoreRequest(asked[0].messages, [8])], None)
    with pytest.raises(EngineError, match="gives no token ids"):
        engine.encode_opening("sure")
