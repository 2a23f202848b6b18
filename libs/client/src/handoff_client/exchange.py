"""One logical call, from its first attempt to its result, without I/O.

`exchange` says what to do next and is told what came of it; `Client` and `AsyncClient` do it. So
both behave alike, and a test needs neither a network nor a clock.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from handoff_client import errors
from handoff_client.call import Call, Repeat, Reply
from handoff_client.retry import RetryPolicy, Trouble, trouble_of, wait_before_repeat

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send this and give back a Reply, or a Failure. timeout: seconds until the answer is there."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt without an answer. sent: whether the request may have arrived."""

    reason: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a client lives in. now: seconds that only rise. chance: from 0 to 1. new_key: a text
    that was never used as an Idempotency-Key."""

    now: Callable[[], float]
    chance: Callable[[], float]
    new_key: Callable[[], str]


Steps = Generator[Send | Wait, Reply | Failure | None, T]


def exchange(
    call: Call[T],
    *,
    base_url: str,
    headers: Mapping[str, str],
    policy: RetryPolicy,
    surroundings: Surroundings,
) -> Steps[T]:
    """The steps of a call; its value is the generator's. A Wait is answered with None.

    Raises HandoffApiError.
    """
    begun = surroundings.now()
    every = _headers(call, headers, surroundings)
    attempt, maybe_done = 0, False
    while True:
        attempt += 1
        left = policy.deadline - (surroundings.now() - begun)
        # What is left may be nothing after a wait that took longer than it should: one last try.
        timeout = min(policy.timeout, max(left, 0.001))
        outcome = yield Send(call.method, call.path, call.query, every, call.body, timeout)
        if isinstance(outcome, Reply):
            if 200 <= outcome.status < 300:
                return _read(call, outcome)
            if outcome.status == 404 and maybe_done and call.repeat is Repeat.GONE:
                return _read(call, outcome)
            error = errors.refusal(call, outcome)
            trouble = trouble_of(outcome.status)
        elif isinstance(outcome, Failure):
            error = errors.unreachable(
                call, base_url, outcome.reason, maybe_done=maybe_done or outcome.sent
            )
            trouble = Trouble.LOST if outcome.sent else Trouble.UNSENT
        else:
            raise TypeError("a Send is answered with a Reply or a Failure")
        if trouble is None:
            raise error
        wait = wait_before_repeat(
            policy,
            call.repeat,
            trouble,
            attempt=attempt,
            elapsed=surroundings.now() - begun,
            chance=surroundings.chance(),
            retry_after=errors.retry_after(outcome.headers) if isinstance(outcome, Reply) else None,
        )
        if wait is None:
            raise error
        maybe_done = maybe_done or trouble is Trouble.LOST
        yield Wait(wait)


def _headers(
    call: Call[T], headers: Mapping[str, str], surroundings: Surroundings
) -> Mapping[str, str]:
    every = dict(headers)
    if call.anonymous:
        every.pop("Fastly-Key", None)
    if call.body is not None:
        every["Content-Type"] = "application/json"
    if call.repeat is Repeat.KEYED:
        every["Idempotency-Key"] = surroundings.new_key()
    return every | dict(call.headers)


def _read(call: Call[T], reply: Reply) -> T:
    try:
        return call.decode(reply)
    except ValueError as error:  # msgspec's, and what is no UTF-8
        raise errors.unusable(call, reply, error) from error
