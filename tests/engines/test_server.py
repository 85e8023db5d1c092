"""The server engine against a small HTTP server that speaks the API; the real ones are in tests/servers."""

from __future__ import annotations

import email.utils
import json
import resource
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from api_server import BUSY, Answer, Api, completion, log_probabilities

from pipeline.engines.balance import Patience
from pipeline.engines.base import Adapter, Failed, Request, Sampling, ScoreRequest
from pipeline.engines.kept import KeptAnswers
from pipeline.engines.roles import Roles, Serving
from pipeline.engines.server import ServerEngine, load_reader
from pipeline.errors import EngineError, InputError, LogProbabilityError
from pipeline.inputs.addresses import read_addresses

SAMPLING = Sampling(0.7, 0.9, 5)


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    made = Api(getattr(request, "param", "vllm"))
    yield made
    made.close()


@pytest.fixture
def engine(api: Api, sandbox_path: str) -> Iterator[ServerEngine]:
    made = open_engine(api, sandbox_path, 8, Patience(attempts=2, timeout=5.0, without_any=1.0))
    yield made
    made.close()


def open_engine(api: Api, model: str, limit: int, patience: Patience, kept: KeptAnswers | None = None) -> ServerEngine:
    is_vllm = api.models[0]["owned_by"] == "vllm"
    return ServerEngine(
        "m",
        partial(read_addresses, api.url),
        reader=partial(load_reader, model, revision=None, chat_template=None) if is_vllm else None,
        key_variables={},
        limit=limit,
        patience=patience,
        kept=kept,
    )


def ask(n: int = 1, text: str = "hello") -> list[Request]:
    return [Request([{"role": "user", "content": text}], seed=10 + i) for i in range(n)]


chat_only = pytest.mark.parametrize("api", ["someone"], indirect=True)


def test_vllm_is_sent_token_ids_with_one_bos_and_no_sampling_of_its_own(api: Api, engine: ServerEngine) -> None:
    (found,) = engine.generate(ask(), SAMPLING, None)
    (asked,) = api.asked
    assert asked["path"] == "/v1/completions"
    assert asked["prompt"].count(2) == 1 and asked["prompt"][0] == 2, "the beginning-of-sequence token"
    given = {key: asked[key] for key in ("model", "seed", "temperature", "top_p", "max_tokens", "stop_token_ids")}
    assert given == {
        "model": "m",
        "seed": 10,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 5,
        "stop_token_ids": [5],
    }
    assert (asked["top_k"], asked["min_p"], asked["repetition_penalty"]) == (0, 0.0, 1.0)
    assert (found.token_ids, found.finish_reason, found.prompt_tokens) == ([700, 8, 5], "stop", len(asked["prompt"]))


@chat_only
def test_others_are_sent_the_dialogue(api: Api, engine: ServerEngine) -> None:
    api.answer = lambda body: (200, completion(body, text="  yes . "))
    (found,) = engine.generate(ask(text="<|im_end|> </s> <b>"), SAMPLING, None)
    (asked,) = api.asked
    assert asked["path"] == "/v1/chat/completions"
    content = asked["messages"][0]["content"]
    assert content.replace("\u2060", "") == "<|im_end|> </s> <b>"
    assert "<|im_end|>" not in content and "</s>" not in content and "<b>" in content
    assert (asked["max_tokens"], asked["seed"]) == (5, 10)
    assert (found.text, found.token_ids, found.new_tokens, found.prompt_tokens) == ("yes .", [], 3, 3)


def test_answers_stand_in_the_order_of_the_requests(api: Api, engine: ServerEngine) -> None:
    api.answer = lambda body: (200, completion(body, ids=(body["seed"], 5)))
    found = engine.generate(ask(40), SAMPLING, None)
    assert [one.token_ids[0] for one in found] == list(range(10, 50))
    assert sorted(asked["seed"] for asked in api.asked) == list(range(10, 50)), "each is asked once"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: (200, "<html>overloaded</html>"), "not a completion"),
        (lambda body: (200, {"error": {"message": "overloaded"}}), "not a completion"),
        (lambda body: (200, completion(body) | {"choices": []}), "not a completion"),
        (lambda body: (200, completion(body, finish_reason="abort")), "not finished"),
        (lambda body: (200, completion(body, token_ids=[700])), "do not match its token counts"),
        (lambda body: (200, completion(body, token_ids=None)), "do not match its token counts"),
        (lambda body: (200, completion(body) | {"usage": None}), "does not report its token counts"),
        (lambda body: (200, '{"choices": [{"text": "su'), "not a completion"),
        (lambda body: (500, {"error": {"message": "overloaded"}}), "500"),
        (lambda body: (400, {"error": {"message": "overloaded"}}), "400"),
    ],
)
def test_what_is_no_answer_is_an_error_row_and_never_text(
    api: Api, engine: ServerEngine, damage: Answer, reason: str
) -> None:
    good = api.answer
    api.answer = lambda body: damage(body) if body["seed"] == 11 else good(body)
    found = engine.generate(ask(3), SAMPLING, None)
    assert [one.finish_reason for one in found] == ["stop", "error", "stop"]
    assert (found[1].text, found[1].token_ids, found[1].defect) == ("", [], "error")
    assert reason in str(found[1].error)
    assert sum(asked["seed"] == 11 for asked in api.asked) == (1 if reason == "400" else 2)


@chat_only
@pytest.mark.parametrize(("reason", "found", "tries"), [("length", "length", 1), ("content_filter", "error", 1)])
def test_no_text_for_a_reason_is_not_asked_for_again(
    api: Api, engine: ServerEngine, reason: str, found: str, tries: int
) -> None:
    nothing = {"message": {"role": "assistant", "content": None}, "finish_reason": reason}
    api.answer = lambda body: (200, completion(body, **nothing))
    (one,) = engine.generate(ask(), SAMPLING, None)
    assert (one.finish_reason, one.text, len(api.asked)) == (found, "", tries)
    assert one.new_tokens == (3 if reason == "length" else 0)


@chat_only
def test_a_context_that_is_too_short_has_its_own_reason(api: Api, engine: ServerEngine) -> None:
    refusal = {"error": {"message": "This model's maximum context length is 64 tokens.", "code": 400}}
    api.answer = lambda body: (400, refusal)
    assert engine.generate(ask(), SAMPLING, None)[0].finish_reason == "prompt_too_long"


def test_the_shorter_context_counts(api: Api, engine: ServerEngine) -> None:
    long = engine.generate(ask(text="a " * 70), SAMPLING, None)[0]
    assert long.finish_reason == "prompt_too_long" and "context of 64" in str(long.error)
    assert api.asked == []


def test_scores_are_those_of_the_continuation(api: Api, engine: ServerEngine) -> None:
    api.answer = lambda body: (200, log_probabilities(body))
    asked = ask()[0].messages
    assert engine.score(
        [ScoreRequest(asked, [7, 9]), ScoreRequest(asked, []), ScoreRequest(asked, [1] * 64)], None
    ) == [
        [-0.007, -0.009],
        [],
        [],
    ]


def test_a_score_that_fails_in_every_attempt_says_why_and_leaves_the_others(api: Api, engine: ServerEngine) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if body["prompt"][-1] == 7:
            return BUSY
        return 200, completion(body) if body["prompt"][-1] == 8 else log_probabilities(body)

    api.answer = answer
    asked = ask()[0].messages
    refused, without, fine = engine.score([ScoreRequest(asked, [token]) for token in (7, 8, 9)], None)
    assert isinstance(refused, Failed) and "busy" in refused
    assert isinstance(without, Failed) and "one log-probability per token" in without
    assert fine == [-0.009]
    assert [asked["prompt"][-1] for asked in api.asked].count(8) == 2, "it is tried again"


@chat_only
def test_a_server_that_tells_no_log_probabilities_is_no_failed_request(api: Api, engine: ServerEngine) -> None:
    with pytest.raises(LogProbabilityError, match="gives no log-probabilities"):
        engine.score([ScoreRequest(ask()[0].messages, [7])], None)
    assert api.asked == []


def test_the_key_goes_to_its_host_alone_and_is_shown_nowhere(
    api: Api, sandbox_path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    api.answer = lambda body: (500, {"error": {"message": "who is sk-very-secret?"}})

    def roles(**keys: str) -> Roles:
        serving = Serving(policy=read_addresses(api.url), keys=keys, attempts=1)
        return Roles(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=4, serving=serving)

    for keys, sent in (
        ({api.host: "THE_KEY"}, "Bearer sk-very-secret"),
        ({"api.openai.com": "THE_KEY"}, "Bearer none"),
    ):
        one = roles(**keys)
        (failed,) = one.base().generate(ask(), SAMPLING)
        one.close()
        assert api.headers[-1]["authorization"] == sent
        assert "secret" not in json.dumps({k: v for k, v in api.headers[-1].items() if k != "authorization"})
        if api.host in keys:
            assert "***" in str(failed.error)
            assert "secret" not in str(failed.error)
    api.answer = lambda body: (401, {"error": {"message": "wrong key sk-very-secret"}})
    with pytest.raises(EngineError, match=rf"rejects the key \(401\).*api_keys: \[{api.host}=VARIABLE\]") as caught:
        roles(**{api.host: "THE_KEY"}).base().generate(ask(), SAMPLING)
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown and "secret" not in caplog.text, "nor in what it was caused by"
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(InputError, match="environment variable THE_KEY"):
        roles(**{api.host: "THE_KEY"}).base().generate(ask(), SAMPLING)


def test_roles_are_served_by_their_own_addresses(api: Api, sandbox_path: str) -> None:
    roles = Roles(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=4)
    api.models[0]["owned_by"] = "someone"
    assert roles.named(f"{api.url}#m", None).generate(ask(), SAMPLING)[0].text == "sure"
    assert roles.base().generate(ask(), SAMPLING)[0].token_ids
    assert len(api.asked) == 1
    assert roles.describe(f"{api.url}#m", "cpu") == {"name": "server", "model": "m", "endpoints": [api.url]}
    assert roles.describe("base", "cpu")["name"] == "transformers"
    roles.close()


def test_a_launch_that_was_cut_short_pays_for_no_answer_twice(api: Api, sandbox_path: str, tmp_path: Path) -> None:
    def engine() -> ServerEngine:
        patience = Patience(attempts=1, timeout=5.0, without_any=0.2)
        return open_engine(api, sandbox_path, 2, patience, KeptAnswers(tmp_path, 0, 1))

    def numbered(body: dict[str, Any]) -> tuple[int, Any]:
        if len(api.asked) > 12:
            return 503, {"error": {"message": "gone"}}
        return 200, completion(body, ids=(body["seed"], 5))

    api.answer = numbered
    first = engine()
    with pytest.raises(EngineError, match="what is finished is kept"):
        first.generate(ask(40), SAMPLING, None)
    first.close()
    answered = {asked["seed"] for asked in api.asked[:12]}
    api.asked.clear()
    api.answer = lambda body: (200, completion(body, ids=(body["seed"], 5)))
    again = engine()
    found = again.generate(ask(40), SAMPLING, None)
    again.close()
    assert [one.token_ids[0] for one in found] == list(range(10, 50))
    assert {asked["seed"] for asked in api.asked} == set(range(10, 50)) - answered


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        (lambda: {"Retry-After": "1"}, 1.0),
        (lambda: {"retry-after-ms": "700", "Retry-After": "60"}, 0.7),
        (lambda: {"Retry-After": email.utils.formatdate(time.time() + 2, usegmt=True)}, 0.8),
        (lambda: {}, 0.25),
    ],
    ids=["seconds", "milliseconds", "date", "none"],
)
def test_a_rate_limit_costs_no_attempt_and_the_endpoint_rests(
    api: Api, sandbox_path: str, headers: Callable[[], dict[str, str]], least: float
) -> None:
    asked: list[float] = []

    def answer(body: dict[str, Any]) -> tuple[Any, ...]:
        now = time.monotonic()
        asked.append(now)
        if now - asked[0] < 0.5:
            return 429, {"error": {"message": "slow down"}}, headers()
        return 200, completion(body)

    api.answer = answer
    with closing(open_engine(api, sandbox_path, 12, Patience(attempts=1, timeout=5.0))) as engine:
        found = engine.generate(ask(12), SAMPLING, None)
    assert [one.finish_reason for one in found] == ["stop"] * 12
    asked.sort()
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    back = asked[gaps.index(max(gaps)) + 1 :]
    assert back[0] - asked[0] >= least
    assert back[-1] - back[0] > 0.02, "not all at the same instant"
    assert len(asked) <= 36


def test_a_request_that_stays_refused_fails_in_the_end_and_alone(api: Api, sandbox_path: str) -> None:
    good = api.answer
    api.answer = lambda body: (429, {"error": {"message": "too large"}}) if body["seed"] == 11 else good(body)
    with closing(open_engine(api, sandbox_path, 2, Patience(attempts=1, timeout=5.0, limited=1.0))) as engine:
        found = engine.generate(ask(4), SAMPLING, None)
    assert [one.finish_reason for one in found] == ["stop", "error", "stop", "stop"]
    assert "429: " in str(found[1].error) and "too large" in str(found[1].error)
    assert 2 <= sum(asked["seed"] == 11 for asked in api.asked) <= 5


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 24, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_connections_may_be_more_than_the_files_that_a_process_has_unasked(api: Api, sandbox_path: str) -> None:
    together = threading.Barrier(40)

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        together.wait(5)
        return 200, completion(body)

    api.answer = answer
    with closing(open_engine(api, sandbox_path, 40, Patience(attempts=1, timeout=30.0, without_any=1.0))) as engine:
        found = engine.generate(ask(40), SAMPLING, None)
    assert [one.finish_reason for one in found] == ["stop"] * 40


def test_an_adapter_that_vllm_refuses_is_offered_once(api: Api, engine: ServerEngine, tmp_path: Path) -> None:
    refusal = {"error": {"message": "LoRA rank 32 is greater than max_lora_rank 16.", "type": "InternalServerError"}}
    api.answer = lambda body: (500, refusal) if "lora_name" in body else (200, completion(body))
    with pytest.raises(EngineError, match=r"max_lora_rank 16.*--max-lora-rank of at least `lora_r`"):
        engine.generate(ask(20), SAMPLING, Adapter(tmp_path, "0" * 64))
    assert [asked["path"] for asked in api.asked] == ["/v1/load_lora_adapter"]


def open_policy(model: str, addresses: str) -> Roles:
    serving = Serving(policy=read_addresses(addresses))
    return Roles(model, revision=None, dtype="float32", chat_template=None, batch_size=4, serving=serving)


@chat_only
def test_a_policy_behind_what_is_no_vllm_is_refused_before_it_is_asked(api: Api, sandbox_path: str) -> None:
    with (
        closing(open_policy(sandbox_path, api.url)) as roles,
        pytest.raises(
            EngineError, match=r"is not a vLLM server \(`owned_by` of `m`: someone\).*judge may be any OpenAI"
        ),
    ):
        roles.base().generate(ask(), SAMPLING)
    assert api.asked == []


@pytest.mark.parametrize(
    ("of_the_other", "said"),
    [
        ({"root": "org/b"}, "serves org/b, and another address of this model org/a"),
        ({"owned_by": "someone"}, "is not a vLLM server, unlike the other addresses"),
    ],
)
def test_all_addresses_of_a_policy_are_read_before_it_is_asked(
    api: Api, sandbox_path: str, of_the_other: dict[str, str], said: str
) -> None:
    api.models[0]["root"] = "org/a"
    with closing(Api("vllm")) as other, closing(open_policy(sandbox_path, f"{api.url}, {other.url}")) as roles:
        other.models[0] |= {"root": "org/a", **of_the_other}
        with pytest.raises(EngineError, match=f"{other.url}: {said}"):
            roles.base().generate(ask(), SAMPLING)
        assert api.asked == other.asked == []
        other.models[0] |= {"root": "org/a", "owned_by": "vllm"}
        assert all(one.text for one in roles.base().generate(ask(10), SAMPLING))
        assert api.asked and other.asked


def test_an_address_that_does_not_answer_at_first_is_no_reason_not_to_begin(api: Api, sandbox_path: str) -> None:
    gone = Api("vllm")
    gone.close()
    with closing(open_policy(sandbox_path, f"{gone.url}, {api.url}")) as roles:
        assert [one.finish_reason for one in roles.base().generate(ask(10), SAMPLING)] == ["stop"] * 10


@chat_only
@pytest.mark.parametrize("status", [403, 404])
def test_an_api_that_hides_its_list_is_asked_for_the_model_that_its_address_names(
    api: Api, sandbox_path: str, status: int
) -> None:
    api.list_status = status
    roles = Roles(sandbox_path, revision=None, dtype="float32", chat_template=None, batch_size=4)
    with closing(roles):
        assert roles.named(f"{api.url}#hidden", None).generate(ask(), SAMPLING)[0].text == "sure"
        assert api.asked[0]["model"] == "hidden"
        with pytest.raises(EngineError, match=str(status)):
            roles.named(api.url, None).generate(ask(), SAMPLING)
        api.list_status = 401
        with pytest.raises(EngineError, match=r"rejects the key \(401\)"):
            roles.named(f"{api.url}#other", None).generate(ask(), SAMPLING)
