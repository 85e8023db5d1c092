"""Shares requests among endpoints: limits their number, retries failures and avoids endpoints that are down."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from pipeline.errors import EngineError

E = TypeVar("E")
R = TypeVar("R")

log = logging.getLogger("pipeline")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_DOWN_AFTER = 3
"""Consecutive failures, of the kind that suggests an endpoint is down, after which it is left out."""


class Patience(NamedTuple):
    """How long to keep trying.

    Attributes:
        attempts: attempts per request, the first included.
        timeout: seconds per attempt.
        without_any: seconds to wait while all endpoints are down before giving up.
    """

    attempts: int
    timeout: float
    without_any: float = 120.0


class AttemptFailed(Exception):
    """An attempt that brought no answer.

    Attributes:
        reason: what went wrong, for messages and tables; contains no API key.
        again: whether another attempt may succeed.
        down: whether the failure suggests that the endpoint itself is down.
        after: seconds that the server asks to wait, or None.
    """

    def __init__(self, reason: str, *, again: bool, down: bool = False, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.down, self.after = reason, again, down, after


class _State(Generic[E]):
    """An endpoint and its health; one that is down is tried by one request at a time, after ever longer pauses."""

    def __init__(self, endpoint: E) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.failures = 0
        self.being_tried = False
        self.is_known_down = False
        self.rest = _FIRST_PAUSE
        self.rests_until = 0.0

    @property
    def is_down(self) -> bool:
        return self.failures >= _DOWN_AFTER

    def is_free(self, limit: int) -> bool:
        if self.is_down:
            return not self.being_tried and time.monotonic() >= self.rests_until
        return self.in_flight < limit


class Balancer(Generic[E]):
    """Sends each request to the least busy endpoint. For one event loop at a time.

    Args:
        endpoints: endpoints that share the load; ``str`` gives their names in messages.
        limit: most requests in flight per endpoint.
        patience: limits of every request.
    """

    def __init__(self, endpoints: Sequence[E], limit: int, patience: Patience) -> None:
        self._states = [_State(endpoint) for endpoint in endpoints]
        self._limit, self._patience = limit, patience
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
        attempts = 0
        while True:
            state = await self._take(avoid)
            trial = state.being_tried = state.is_down
            try:
                async with asyncio.timeout(self._patience.timeout):
                    answer = await send(state.endpoint)
            except TimeoutError:
                failure = AttemptFailed(f"no answer within {self._patience.timeout:g} s", again=True, down=True)
            except AttemptFailed as failed:
                failure = failed
            else:
                self._note_life(state)
                return answer
            finally:
                state.in_flight -= 1
                state.being_tried = state.being_tried and not trial
                await self._notify()
            self._note_failure(state, failure)
            # Some request has to find out whether an endpoint is up again; this is not held against that request.
            attempts += not (trial and failure.down)
            if not failure.again or attempts >= self._patience.attempts:
                raise failure
            avoid = state
            await asyncio.sleep(_pause(attempts, failure.after))

    async def _take(self, avoid: _State[E] | None) -> _State[E]:
        async with self._changed:
            while True:
                free = [state for state in self._states if state.is_free(self._limit)]
                if free:
                    # Prefer an endpoint other than the one that just failed.
                    chosen = min(free, key=lambda state: (state is avoid, state.in_flight))
                    if chosen.is_down:
                        self._give_up_if_all_are_gone()
                    chosen.in_flight += 1
                    return chosen
                self._give_up_if_all_are_gone()
                try:
                    async with asyncio.timeout(self._longest_wait()):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _longest_wait(self) -> float:
        """Seconds until an endpoint that is down may be tried again; never so short that waiting becomes spinning."""
        now = time.monotonic()
        rests = [state.rests_until - now for state in self._states if state.is_down]
        return max(min(rests, default=_LONGEST_PAUSE), 0.05)

    def _note_life(self, state: _State[E]) -> None:
        if state.is_known_down:
            log.info("%s: answers again", state.endpoint)
        state.failures, state.rest, state.is_known_down = 0, _FIRST_PAUSE, False
        self._all_down_since = None

    def _note_failure(self, state: _State[E], failure: AttemptFailed) -> None:
        if not failure.down:
            self._note_life(state)
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
                f"{names}: no answer for {self._patience.without_any:g} s ({self._last_reason}). Restart the server, "
                "or correct the address in the recipe; what is finished is kept."
            )


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: doubling, with jitter so that requests do not come back all at once."""
    if asked is not None:
        return min(asked, 120.0)
    return min(_FIRST_PAUSE * 2.0 ** max(attempt - 1, 0), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
