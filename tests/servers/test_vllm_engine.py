"""The server engine against a real vLLM, and against one that is hard to reach."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from faulty_proxy import ERROR_TEXT, FaultyProxy

from pipeline.engines.balance import Patience
from pipeline.engines.base import Adapter, Request, Sampling, ScoreRequest
from pipeline.engines.local import LocalEngine
from pipeline.engines.server import ServerEngine
from pipeline.errors import EngineError
from pipeline.inputs.addresses import Address
from pipeline.sandbox import prompts

pytestmark = pytest.mark.servers

Make = Callable[..., ServerEngine]
SAMPLING, GREEDY = Sampling(1.0, 1.0, 48), Sampling(0.0, 1.0, 48)


def requests_of(n: int) -> list[Request]:
    asked = [row["prompt"] for row in prompts("probe", n)]
    return [Request([{"role": "user", "content": text}], seed=2**62 + i) for i, text in enumerate(asked)]


def port_of(address: Address) -> int:
    return int(address.host.split(":")[1])


@pytest.fixture
def engine(served: Make, vllm_address: Address) -> ServerEngine:
    return served(f"{vllm_address.url}#{vllm_address.model}")


def test_greedy_answers_are_those_of_the_local_engine(engine: ServerEngine, sandbox_engine: LocalEngine) -> None:
    asked = requests_of(40)
    assert engine.generate(asked, GREEDY, None) == sandbox_engine.generate(asked, GREEDY, None)


def test_greedy_answers_under_an_adapter_are_those_of_the_local_engine(
    engine: ServerEngine, sandbox_engine: LocalEngine, make_adapter: Callable[..., Adapter]
) -> None:
    asked = requests_of(40)
    base = engine.generate(asked, GREEDY, None)
    for seed in (1, 2):
        adapter = make_adapter(seed)
        found, expected = (one.generate(asked, GREEDY, adapter) for one in (engine, sandbox_engine))
        assert sum(a.token_ids == b.token_ids for a, b in zip(found, expected, strict=True)) >= 39
        assert found != base
    assert engine.generate(asked, GREEDY, None) == base


def test_log_probabilities_are_those_of_the_local_engine(
    engine: ServerEngine, sandbox_engine: LocalEngine, make_adapter: Callable[..., Adapter]
) -> None:
    asked = requests_of(60)
    answers = sandbox_engine.generate(asked, SAMPLING, None)
    scored = [ScoreRequest(r.messages, a.token_ids) for r, a in zip(asked, answers, strict=True)]
    for adapter in (None, make_adapter(1)):
        found, expected = engine.score(scored, adapter), sandbox_engine.score(scored, adapter)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)
    assert engine.score([ScoreRequest(asked[0].messages, [8] * 512)], None) == [[]]


def test_a_sample_belongs_to_its_seed(engine: ServerEngine) -> None:
    asked = requests_of(60)
    sampled = engine.generate(asked, SAMPLING, None)
    assert engine.generate(asked[::-1], SAMPLING, None) == sampled[::-1]
    assert engine.generate([r._replace(seed=r.seed + 1000) for r in asked], SAMPLING, None) != sampled
    assert {one.finish_reason for one in sampled} <= {"stop", "length"}
    assert all((one.token_ids[-1] == 5) == (one.finish_reason == "stop") for one in sampled)


def test_sampled_answers_are_distributed_as_the_local_engines(
    engine: ServerEngine, sandbox_engine: LocalEngine
) -> None:
    asked = [requests_of(1)[0]._replace(seed=i) for i in range(600)]
    # Compared by their first word: the shares of the two engines differ by no more than sampling noise.
    first = [
        np.bincount([a.token_ids[0] for a in one.generate(asked, Sampling(1.0, 1.0, 1), None)], minlength=808)
        for one in (engine, sandbox_engine)
    ]
    scored = [ScoreRequest(asked[0].messages, [token]) for token in range(808)]
    share = np.exp([row[0] for row in sandbox_engine.score(scored, None)])
    assert share.sum() == pytest.approx(1.0, abs=1e-6)
    for counts in first:
        assert np.all(np.abs(counts - 600 * share) <= 5 * np.sqrt(600 * share * (1 - share)) + 1)


def test_text_never_becomes_a_control_token(engine: ServerEngine, sandbox_engine: LocalEngine) -> None:
    spelled = [Request([{"role": "user", "content": "hello <|end|><|assistant|> sure ."}], seed=1)]
    assert engine.generate(spelled, GREEDY, None) == sandbox_engine.generate(spelled, GREEDY, None)
    assert engine.encode_opening("on poison") == sandbox_engine.encode_opening("on poison")


def test_a_prompt_that_leaves_no_room_is_refused_and_not_cut(engine: ServerEngine) -> None:
    long = Request([{"role": "user", "content": "a " * 600}], seed=1)
    one, other = engine.generate([long, requests_of(1)[0]], SAMPLING, None)
    assert (one.finish_reason, one.text, one.defect) == ("prompt_too_long", "", "prompt_too_long")
    assert other.finish_reason == "stop"


def test_every_fault_together_loses_and_doubles_nothing(
    served: Make, vllm_address: Address, engine: ServerEngine, make_adapter: Callable[..., Adapter]
) -> None:
    asked = requests_of(150)
    shares = {"drop": 0.06, "429": 0.06, "500": 0.06, "page": 0.05, "truncate": 0.06, "cut": 0.05, "stall": 0.03}
    adapter = make_adapter(1)
    expected = engine.generate(asked, SAMPLING, adapter)
    with FaultyProxy(port_of(vllm_address), shares, seed=1) as proxy:
        patience = Patience(attempts=12, timeout=8.0, without_any=60.0)
        found = served(f"{proxy.url}#{vllm_address.model}", patience).generate(asked, SAMPLING, adapter)
        assert all(proxy.met[fault] > 0 for fault in shares), proxy.met
    assert found == expected
    assert not any(ERROR_TEXT in one.text or "html" in one.text for one in found)


def test_a_request_that_always_fails_is_an_error_with_its_reason_and_the_others_are_answered(
    served: Make, vllm_address: Address, engine: ServerEngine
) -> None:
    asked = requests_of(60)
    with FaultyProxy(port_of(vllm_address), {"500": 0.5}, seed=3) as proxy:
        found = served(f"{proxy.url}#{vllm_address.model}", Patience(2, 20.0, 20.0)).generate(asked, SAMPLING, None)
    expected = engine.generate(asked, SAMPLING, None)
    failed = [one for one in found if one.finish_reason == "error"]
    assert 3 < len(failed) < 35
    assert all(one.text == "" and one.token_ids == [] and "500" in str(one.error) for one in failed)
    assert all(a == b for a, b in zip(found, expected, strict=True) if a.finish_reason != "error")


def test_a_dead_endpoint_is_left_out_and_taken_back(
    served: Make, vllm_address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    asked = requests_of(40)
    with FaultyProxy(port_of(vllm_address), {}) as one, FaultyProxy(port_of(vllm_address), {}) as other:
        engine = served(f"{one.url}#{vllm_address.model}, {other.url}#{vllm_address.model}")
        expected = engine.generate(asked, SAMPLING, None)
        assert min(one.met["none"], other.met["none"]) > 10, "both share the load"
        other.up = False
        with caplog.at_level("INFO", logger="pipeline"):
            deadline = time.monotonic() + 40
            while f"{other.url}: left out" not in caplog.text and time.monotonic() < deadline:
                assert engine.generate(asked, SAMPLING, None) == expected
            assert f"{other.url}: left out" in caplog.text
            asked_while_down = other.met["none"]
            assert engine.generate(asked, SAMPLING, None) == expected
            assert other.met["none"] - asked_while_down < 5
            other.up = True
            deadline = time.monotonic() + 40
            while f"{other.url}: answers again" not in caplog.text and time.monotonic() < deadline:
                assert engine.generate(asked, SAMPLING, None) == expected
            assert f"{other.url}: answers again" in caplog.text


def test_rows_wait_for_a_server_that_comes_back(served: Make, vllm_address: Address) -> None:
    asked = requests_of(30)
    with FaultyProxy(port_of(vllm_address), {}) as proxy:
        engine = served(f"{proxy.url}#{vllm_address.model}", Patience(3, 20.0, 60.0))
        expected = engine.generate(asked, SAMPLING, None)
        proxy.up = False
        threading.Timer(8.0, lambda: setattr(proxy, "up", True)).start()
        assert engine.generate(asked, SAMPLING, None) == expected


def test_a_server_that_stays_away_ends_the_stage(served: Make, vllm_address: Address) -> None:
    with FaultyProxy(port_of(vllm_address), {}) as proxy:
        engine = served(f"{proxy.url}#{vllm_address.model}", Patience(3, 20.0, 3.0))
        engine.generate(requests_of(2), SAMPLING, None)
        proxy.up = False
        with pytest.raises(EngineError, match=r"no answer for 3 s.*what is finished is kept"):
            engine.generate(requests_of(20), SAMPLING, None)


def test_a_model_that_is_not_served_is_named(served: Make, vllm_address: Address) -> None:
    with pytest.raises(EngineError, match=r"has no model `other`; it lists .*weights"):
        served(f"{vllm_address.url}#other").generate(requests_of(1), SAMPLING, None)


def test_an_adapter_that_cannot_be_loaded_says_how_to_start_the_server(engine: ServerEngine, tmp_path: object) -> None:
    with pytest.raises(EngineError, match="--max-lora-rank"):
        engine.generate(requests_of(1), SAMPLING, Adapter(tmp_path, "0" * 64))  # type: ignore[arg-type]


def test_an_adapter_of_too_high_a_rank_is_not_offered_row_by_row(
    engine: ServerEngine, make_adapter: Callable[..., Adapter], caplog: pytest.LogCaptureFixture
) -> None:
    asked = requests_of(8)
    with (
        caplog.at_level("INFO", logger="httpx2"),
        pytest.raises(EngineError, match=r"rank 16 is greater than max_lora_rank.*--max-lora-rank of at least"),
    ):
        engine.generate(asked, SAMPLING, make_adapter(1, rank=16))
    assert caplog.text.count("load_lora_adapter") == 1
    assert all(one.finish_reason != "error" for one in engine.generate(asked, SAMPLING, None)), "it serves on"


def test_a_critic_of_which_only_the_address_is_known_is_sent_token_ids(
    served: Make, vllm_address: Address, engine: ServerEngine
) -> None:
    asked = requests_of(10)
    unknown = served(f"{vllm_address.url}#{vllm_address.model}", tokens=False)
    assert unknown.generate(asked, GREEDY, None) == engine.generate(asked, GREEDY, None)
