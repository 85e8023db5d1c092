from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from pipeline.engines.balance import AttemptFailed, Balancer, Patience
from pipeline.errors import EngineError

QUICK = Patience(attempts=4, timeout=5.0, without_any=1.0)


def ask_all(balancer: Balancer[str], send: object, n: int) -> list[object]:
    async def work() -> list[object]:
        return await asyncio.gather(*(balancer.ask(send) for _ in range(n)), return_exceptions=True)  # type: ignore[arg-type]

    return asyncio.run(work())


def test_the_load_is_shared_and_bounded() -> None:
    at_once: Counter[str] = Counter()
    most: Counter[str] = Counter()
    served: Counter[str] = Counter()

    async def send(endpoint: str) -> str:
        at_once[endpoint] += 1
        most[endpoint] = max(most[endpoint], at_once[endpoint])
        await asyncio.sleep(0.01)
        at_once[endpoint] -= 1
        served[endpoint] += 1
        return endpoint

    assert len(ask_all(Balancer(["a", "b", "c"], 5, QUICK), send, 90)) == 90
    assert set(most.values()) == {5}
    assert max(served.values()) - min(served.values()) <= 10


def test_a_slow_endpoint_gets_less() -> None:
    served: Counter[str] = Counter()

    async def send(endpoint: str) -> None:
        await asyncio.sleep(0.1 if endpoint == "slow" else 0.01)
        served[endpoint] += 1

    ask_all(Balancer(["slow", "fast"], 2, QUICK), send, 60)
    assert served["fast"] > 4 * served["slow"] > 0


def test_a_failed_attempt_goes_elsewhere_and_no_answer_is_taken_twice() -> None:
    asked: list[str] = []

    async def send(endpoint: str) -> str:
        asked.append(endpoint)
        if endpoint == "bad":
            raise AttemptFailed("no", again=True)
        return endpoint

    assert ask_all(Balancer(["bad", "good"], 8, QUICK), send, 10) == ["good"] * 10
    assert asked.count("good") == 10


def test_attempts_end_and_the_last_reason_is_kept() -> None:
    count = 0

    async def send(endpoint: str) -> None:
        nonlocal count
        count += 1
        raise AttemptFailed(f"failure {count}", again=True, after=0.0)

    (failure,) = ask_all(Balancer(["a"], 8, QUICK), send, 1)
    assert isinstance(failure, AttemptFailed) and failure.reason == "failure 4"


def test_what_cannot_succeed_is_not_tried_again() -> None:
    count = 0

    async def send(endpoint: str) -> None:
        nonlocal count
        count += 1
        raise AttemptFailed("400: bad request", again=False)

    ask_all(Balancer(["a"], 8, QUICK), send, 3)
    assert count == 3


def test_an_attempt_that_takes_too_long_is_another_failure() -> None:
    async def send(endpoint: str) -> str:
        if endpoint == "stalls":
            await asyncio.sleep(60)
        return endpoint

    patience = QUICK._replace(timeout=0.1)
    assert ask_all(Balancer(["stalls", "answers"], 4, patience), send, 8) == ["answers"] * 8


@pytest.mark.parametrize("up", [True, False])
def test_a_request_that_is_always_too_slow_fails_alone_if_the_server_is_up(up: bool) -> None:
    asked = 0

    async def send(endpoint: str) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)

    async def is_up(endpoint: str) -> bool:
        return up

    patience = Patience(attempts=6, timeout=0.3, without_any=0.5)
    (failure,) = ask_all(Balancer(["a"], 4, patience, is_up=is_up), send, 1)
    if up:
        assert isinstance(failure, AttemptFailed) and failure.reason == "no answer within 0.3 s"
        assert asked == 6
    else:
        assert isinstance(failure, EngineError) and "no answer for 0.5 s" in str(failure)


def test_an_endpoint_that_is_down_is_left_out_and_taken_back() -> None:
    up_at = time.monotonic() + 1.2
    asked: Counter[str] = Counter()

    async def send(endpoint: str) -> str:
        asked[endpoint] += 1
        if endpoint == "b" and time.monotonic() < up_at:
            raise AttemptFailed("connection failed", again=True, down=True)
        await asyncio.sleep(0.05)
        return endpoint

    found = ask_all(Balancer(["a", "b"], 4, QUICK), send, 240)
    assert all(answer in ("a", "b") for answer in found)
    down = asked["b"] - found.count("b")
    assert 3 <= down <= 12, "down, it is tried by one request at a time"
    assert found.count("b") > 20, "up again, it takes its share"


def test_trying_whether_an_endpoint_is_up_costs_no_attempt() -> None:
    up_at = time.monotonic() + 2.0

    async def send(endpoint: str) -> str:
        if time.monotonic() < up_at:
            raise AttemptFailed("connection failed", again=True, down=True)
        return endpoint

    patience = Patience(attempts=2, timeout=5.0, without_any=20.0)
    found = ask_all(Balancer(["a"], 4, patience), send, 6)
    # Those under way as it went down have used their attempts; whoever came after has waited.
    assert found.count("a") >= 2
    assert all(one == "a" or isinstance(one, AttemptFailed) for one in found)


def test_no_endpoint_at_all_ends_it() -> None:
    async def send(endpoint: str) -> None:
        raise AttemptFailed("connection refused", again=True, down=True)

    patience = Patience(attempts=100, timeout=5.0, without_any=1.0)
    started = time.monotonic()
    found = ask_all(Balancer(["a", "b"], 4, patience), send, 5)
    assert all(isinstance(one, EngineError) for one in found)
    assert "a, b: no answer for 1 s (connection refused)" in str(found[0])
    assert time.monotonic() - started < 10


def test_one_request_to_an_endpoint_that_asks_for_longer_rests_than_it_gets_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.engines.balance._LONGEST_PAUSE", 0.05)

    async def send(endpoint: str) -> None:
        raise AttemptFailed("503: busy", again=True, down=True, after=0.1)

    (failure,) = ask_all(Balancer(["a"], 1, QUICK), send, 1)
    assert isinstance(failure, EngineError) and "no answer for 1 s (503: busy)" in str(failure)


def test_an_endpoint_with_a_rate_limit_is_asked_less_at_once_and_nothing_fails() -> None:
    allowed, refused = 10.0, 0

    async def refill() -> None:
        nonlocal allowed
        while True:
            await asyncio.sleep(0.02)
            allowed = min(allowed + 1, 10)  # fifty requests per second

    async def send(endpoint: str) -> str:
        nonlocal allowed, refused
        await asyncio.sleep(0.005)
        if allowed < 1:
            refused += 1
            raise AttemptFailed("429", again=True, limited=True, after=0.2)
        allowed -= 1
        return endpoint

    async def work() -> list[str]:
        filling = asyncio.ensure_future(refill())
        balancer = Balancer(["a"], 64, Patience(attempts=1, timeout=5.0, limited=0.5))
        answers = await asyncio.gather(*(balancer.ask(send) for _ in range(300)))
        filling.cancel()
        return answers

    assert asyncio.run(work()) == ["a"] * 300
    assert refused < 300
