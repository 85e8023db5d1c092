"""Shares requests among endpoints: limits their number, retries failures and avoids endpoints that are down."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Generic, NamedTuple, TypeVar

from pipeline.errors import EngineError

E = TypeVar("E")
R = TypeVar("R")

log = logging.getLogger("pipeline")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LEAST_REFUSALS = 4
"""Refusals by a rate limit before one may be a request's last: until then it may just have come late every time."""
_DOWN_AFTER = 3
"""Consecutive failures, of the kind that suggests an endpoint is down, after which it is left out."""

START_AGAIN = "Start the server again, or correct the address in the recipe"
"""Advice on servers that the pipeline has not started."""


class Patience(NamedTuple):
    """How long to keep trying.

    Attributes:
        attempts: attempts per request, the first included; those refused by a rate limit do not count.
        timeout: seconds per attempt.
        without_any: seconds to wait while all endpoints are down before giving up.
        limited: seconds since a rate limit first refused a request, after which the next refusal may be its last.
    """

    attempts: int
    timeout: float
    without_any: float = 120.0
    limited: float = 600.0


class AttemptFailed(Exception):
    """An attempt that brought no answer.

    Attributes:
        reason: what went wrong, for messages and tables; contains no API key.
        again: whether another attempt may succeed.
        down: whether the failure suggests that the endpoint itself is down.
        limited: whether the endpoint says that it has been asked too often.
        after: seconds that the server asks to wait, or None.
    """

    def __init__(
        self, reason: str, *, again: bool, down: bool = False, limited: bool = False, after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.down, self.limited, self.after = reason, again, down, limited, after


class _State(Generic[E]):
    """An endpoint and its health.

    One that is down is tried by one request at a time, after ever longer pauses; one that has set a rate limit is not
    asked for as long as it says, or for ever longer pauses.
    """

    def __init__(self, endpoint: E) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.failures = 0
        self.being_tried = False
        self.is_known_down = False
        self.rest = _FIRST_PAUSE
        self.rests_until = 0.0
        self.refusals = 0
        self.is_known_limited = False
        self.closed_for = 0.0
        self.closed_until = 0.0
        self.allowed = inf

    @property
    def is_down(self) -> bool:
        return self.failures >= _DOWN_AFTER

    def opens_at(self, lateness: float) -> float:
        """When it may be asked again; ``lateness``, 0 to 1, is a request's place among those kept waiting."""
        return self.rests_until if self.is_down else self.closed_until + lateness * self.closed_for / 2

    def is_free(self, limit: int, lateness: float) -> bool:
        has_room = not self.being_tried if self.is_down else self.in_flight < min(limit, self.allowed)
        return has_room and time.monotonic() >= self.opens_at(lateness)

    def close(self, asked: float | None) -> None:
        """Keep requests away for a while, and let half as many in after it.

        Those that were already under way and are refused as well change nothing.
        """
        now = time.monotonic()
        if now >= self.closed_until:
            self.refusals += 1
            self.closed_for = _pause(self.refusals, asked or None)
            self.closed_until = now + self.closed_for
            self.allowed = max(min(self.allowed, self.in_flight) / 2, 1.0)

    def widen(self) -> None:
        """After an answer: one request more at once for every round of answers, as TCP does after congestion."""
        self.refusals = 0
        self.allowed += 1 / self.allowed


class Balancer(Generic[E]):
    """Sends each request to the least busy endpoint. For one event loop at a time.

    Args:
        endpoints: endpoints that share the load; ``str`` gives their names in messages.
        limit: most requests in flight per endpoint.
        patience: limits of every request.
        advice: what to do when all endpoints are gone.
        is_up: asked after a time-out: if the endpoint is up, it was the request that took too long.
    """

    def __init__(
        self,
        endpoints: Sequence[E],
        limit: int,
        patience: Patience,
        advice: str = START_AGAIN,
        is_up: Callable[[E], Awaitable[bool]] | None = None,
    ) -> None:
        self._states = [_State(endpoint) for endpoint in endpoints]
        self._limit, self._patience, self._advice, self._is_up = limit, patience, advice, is_up
        self._changed = asyncio.Condition()
        self._all_down_since: float | None = None
        self._last_reason = ""

    async def ask(self, send: Callable[[E], Awaitable[R]]) -> R:
        """The answer of the first attempt that succeeds.

        Raises:
            AttemptFailed: the last attempt failed, and another is not allowed or would be pointless.
            EngineError: no endpoint has answered for as long as patience allows.
        """
        avoid: _State[E] | None = None
        attempts = refusals = 0
        first_refused = 0.0
        while True:
            state = await self._take(avoid)
            trial = state.being_tried = state.is_down
            try:
                async with asyncio.timeout(self._patience.timeout):
                    answer = await send(state.endpoint)
            except TimeoutError:
                up = self._is_up is not None and await self._is_up(state.endpoint)
                failure = AttemptFailed(f"no answer within {self._patience.timeout:g} s", again=True, down=not up)
            except AttemptFailed as failed:
                failure = failed
            else:
                self._note_life(state)
                state.widen()
                return answer
            finally:
                state.in_flight -= 1
                state.being_tried = state.being_tried and not trial
                await self._notify()
            self._note_failure(state, failure)
            # Some request has to find out whether an endpoint is up again; this is not held against that request.
            attempts += not (failure.limited or (trial and failure.down))
            if failure.limited:
                refusals += 1
                first_refused = first_refused or time.monotonic()
                failure.again = refusals < _LEAST_REFUSALS or time.monotonic() - first_refused < self._patience.limited
            if not failure.again or attempts >= self._patience.attempts:
                raise failure
            avoid = state
            # What a rate limit asks for is kept by the endpoint as a whole; another one may be asked before.
            await asyncio.sleep(_pause(attempts + refusals, None if failure.limited else failure.after))

    async def _take(self, avoid: _State[E] | None) -> _State[E]:
        lateness = random.random()
        async with self._changed:
            while True:
                free = [state for state in self._states if state.is_free(self._limit, lateness)]
                if free:
                    # Prefer an endpoint other than the one that just failed.
                    chosen = min(free, key=lambda state: (state is avoid, state.in_flight))
                    if chosen.is_down:
                        self._give_up_if_all_are_gone()
                    chosen.in_flight += 1
                    return chosen
                self._give_up_if_all_are_gone()
                try:
                    async with asyncio.timeout(self._longest_wait(lateness)):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _longest_wait(self, lateness: float) -> float:
        """Seconds until a resting endpoint may be asked again; never so short that waiting becomes spinning."""
        now = time.monotonic()
        rests = [state.opens_at(lateness) - now for state in self._states]
        return max(min((rest for rest in rests if rest > 0), default=_LONGEST_PAUSE), 0.05)

    def _note_life(self, state: _State[E]) -> None:
        if state.is_known_down:
            log.info("%s: answers again", state.endpoint)
        state.failures, state.rest, state.is_known_down = 0, _FIRST_PAUSE, False
        self._all_down_since = None

    def _note_failure(self, state: _State[E], failure: AttemptFailed) -> None:
        if not failure.down:
            self._note_life(state)
            if failure.limited:
                state.close(failure.after)
                if not state.is_known_limited:
                    state.is_known_limited = True
                    log.info("%s: sets a rate limit, which is kept from here on (%s)", state.endpoint, failure.reason)
            return
        was_down = state.is_down
        state.failures += 1
        self._last_reason = failure.reason
        if state.is_down and time.monotonic() >= state.rests_until:
            # Not at the first pause: a server that closes idle connections briefly looks like one that is down.
            if was_down and not state.is_known_down:
                state.is_known_down = True
                log.warning("%s: left out for now (%s)", state.endpoint, failure.reason)
            state.rests_until = time.monotonic() + state.rest
            state.rest = min(2 * state.rest, _LONGEST_PAUSE)
        if self._all_down_since is None and all(one.is_down for one in self._states):
            self._all_down_since = time.monotonic()

    def _give_up_if_all_are_gone(self) -> None:
        since = self._all_down_since
        if since is not None and time.monotonic() - since > self._patience.without_any:
            names = ", ".join(str(state.endpoint) for state in self._states)
            raise EngineError(
                f"{names}: no answer for {self._patience.without_any:g} s ({self._last_reason}). "
                f"{self._advice}; what is finished is kept."
            )


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: doubling, with jitter so that requests do not come back all at once."""
    if asked is not None:
        return min(asked, 120.0)
    return min(_FIRST_PAUSE * 2.0 ** max(attempt - 1, 0), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
