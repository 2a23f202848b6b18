"""One logical call over several attempts, with answers given by hand: no network, no clock."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_client import (
    Conflict,
    Forbidden,
    HandoffApiError,
    Invalid,
    NotFound,
    RateLimited,
    RetryPolicy,
    Unauthorized,
    Unexpected,
    Unreachable,
    backends,
    connections,
    domains,
    invoices,
    limits,
    services,
    sessions,
    tokens,
    versions,
)
from handoff_client.call import Call, Reply
from handoff_client.errors import retry_after
from handoff_client.exchange import Failure, Send, Surroundings, Wait, exchange

POLICY = RetryPolicy(timeout=10, deadline=30, attempts=3, first_wait=1, longest_wait=4)
HEADERS = {"Fastly-Key": "secret-token"}


class Course:
    """A call that is driven with `outcomes`. sent, waits: what it asked for."""

    def __init__(self, call: Call[Any], outcomes: Iterable[Reply | Failure]) -> None:
        self.sent: list[Send] = []
        self.waits: list[float] = []
        self._now = 100.0
        self._keys = 0
        self._steps = exchange(
            call,
            base_url="http://api",
            headers=HEADERS,
            policy=POLICY,
            surroundings=Surroundings(lambda: self._now, lambda: 1.0, self._new_key),
        )
        self._outcomes = iter(outcomes)

    def _new_key(self) -> str:
        self._keys += 1
        return f"key-{self._keys}"

    def run(self) -> Any:
        outcome: Reply | Failure | None = None
        while True:
            try:
                step = self._steps.send(outcome)
            except StopIteration as stop:
                return stop.value
            if isinstance(step, Wait):
                self.waits.append(step.seconds)
                self._now += step.seconds
                outcome = None
            else:
                self.sent.append(step)
                outcome = next(self._outcomes)


def reply(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, body)


LOST = Failure("connection reset", sent=True)
UNSENT = Failure("connection refused", sent=False)
CREATED = reply(
    200,
    b'{"id":"s","name":"n","customer_id":"c","type":"vcl","comment":"",'
    b'"versions":[],"created_at":"2026-11-01T00:00:00Z",'
    b'"updated_at":"2026-11-01T00:00:00Z","deleted_at":null,"new":"unknown"}',
)


def test_a_read_is_repeated_with_growing_waits_until_it_is_answered() -> None:
    course = Course(services.get("s"), [LOST, reply(503), CREATED])
    assert course.run().id == "s"
    assert course.waits == [1, 2]
    assert [one.path for one in course.sent] == ["/service/s"] * 3


def test_a_create_keeps_its_key_over_its_repeats_and_a_read_has_none() -> None:
    course = Course(services.create("n"), [reply(502), UNSENT, CREATED])
    course.run()
    assert {one.headers["Idempotency-Key"] for one in course.sent} == {"key-1"}
    again = Course(services.get("s"), [CREATED])
    again.run()
    assert "Idempotency-Key" not in again.sent[0].headers


@pytest.mark.parametrize(
    "call",
    [
        versions.clone("s", 1),
        versions.deactivate("s", 1),
        invoices.correct("1"),
        sessions.create("a", "b"),
        tokens.revoke_self(),
        backends.update("s", 1, "b", name="renamed"),
        domains.update("s", 1, "d", new_name="renamed"),
    ],
)
def test_what_must_not_be_done_twice_is_sent_once(call: Call[Any]) -> None:
    for outcome in (LOST, reply(503), reply(504)):
        course = Course(call, [outcome])
        with pytest.raises(Unreachable):
            course.run()
        assert len(course.sent) == 1


def test_what_did_not_leave_is_sent_again_whatever_it_is() -> None:
    course = Course(versions.clone("s", 1), [UNSENT, UNSENT, UNSENT])
    with pytest.raises(Unreachable, match="http://api cannot be reached: connection refused"):
        course.run()
    assert len(course.sent) == 3


@pytest.mark.parametrize(
    ("outcomes", "maybe_done"),
    [
        ([UNSENT, UNSENT, UNSENT], False),
        ([LOST, UNSENT, UNSENT], True),
        ([reply(504), UNSENT, UNSENT], True),
        ([UNSENT, UNSENT, LOST], True),
        ([UNSENT, UNSENT, reply(503)], True),
    ],
)
def test_only_what_never_left_is_known_not_to_be_done(
    outcomes: list[Reply | Failure], maybe_done: bool
) -> None:
    with pytest.raises(Unreachable) as caught:
        Course(services.create("n"), outcomes).run()
    assert caught.value.maybe_done is maybe_done


def test_a_delete_whose_answer_was_lost_is_done_where_its_repeat_finds_nothing() -> None:
    assert Course(services.delete("s"), [LOST, reply(404)]).run() is None
    with pytest.raises(NotFound):
        Course(services.delete("s"), [reply(404)]).run()
    with pytest.raises(NotFound):
        Course(services.delete("s"), [UNSENT, reply(404)]).run()


def test_a_rate_limit_is_waited_for_within_the_deadline_and_told_beyond_it() -> None:
    limited = reply(429, headers={"retry-after": "7"})
    course = Course(services.create("n"), [limited, CREATED])
    course.run()
    assert course.waits == [8]
    course = Course(services.get("s"), [reply(429, headers={"retry-after": "29"})])
    with pytest.raises(RateLimited) as caught:
        course.run()
    assert caught.value.retry_after == 29 and course.waits == []


def test_a_change_with_if_match_is_not_repeated() -> None:
    course = Course(limits.put("s", if_match='"tag"'), [LOST])
    with pytest.raises(Unreachable):
        course.run()
    assert course.sent[0].headers["If-Match"] == '"tag"'


def test_signing_in_bears_no_token_and_no_text_shows_the_password() -> None:
    call = sessions.create("someone", "hunter2-hunter2")
    course = Course(call, [reply(503)])
    with pytest.raises(Unreachable):
        course.run()
    assert "Fastly-Key" not in course.sent[0].headers
    assert "hunter2" not in repr(call) + repr(course.sent)
    course = Course(services.get("s"), [CREATED])
    course.run()
    assert course.sent[0].headers["Fastly-Key"] == "secret-token"
    assert "secret-token" not in repr(course.sent)


@given(st.lists(st.sampled_from([LOST, UNSENT, reply(429), reply(502), reply(504)]), min_size=3))
def test_attempts_waits_and_time_outs_keep_to_the_policy(outcomes: list[Reply | Failure]) -> None:
    course = Course(connections.listing().first, outcomes)
    with pytest.raises(HandoffApiError):
        course.run()
    assert len(course.sent) == POLICY.attempts
    assert sum(course.waits) < POLICY.deadline
    assert all(0 < one.timeout <= POLICY.timeout for one in course.sent)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (413, Invalid),
        (422, Invalid),
        (500, Unexpected),
        (302, Unexpected),
    ],
)
def test_an_answer_that_no_repeat_changes_is_raised_at_once(
    status: int, kind: type[HandoffApiError]
) -> None:
    course = Course(services.get("s"), [reply(status)])
    with pytest.raises(HandoffApiError) as caught:
        course.run()
    assert type(caught.value) is kind and caught.value.status == status


def test_a_problem_names_its_code_its_fields_and_its_request() -> None:
    body = (
        b'{"type":"urn:handoff:error:invoice_held","title":"Invoice held","status":409,'
        b'"detail":"1 reason","errors":[{"property":"edge_silent","reason":"e1"}],'
        b'"request_id":"r1"}'
    )
    with pytest.raises(Conflict, match="POST /v1/invoices/1/finalize: 409 Invoice held: 1") as held:
        Course(invoices.finalize("1"), [reply(409, body)]).run()
    error = held.value
    assert (error.code, error.title, error.request_id) == ("invoice_held", "Invoice held", "r1")
    assert [(one.property, one.reason) for one in error.errors] == [("edge_silent", "e1")]


def test_a_classic_refusal_has_its_msg_as_code() -> None:
    body = b'{"msg":"Record not found","detail":"no service \'s\'"}'
    answered = reply(404, body, {"x-request-id": "r2"})
    with pytest.raises(NotFound, match="404 Record not found: no service 's'") as caught:
        Course(services.get("s"), [answered]).run()
    assert (caught.value.code, caught.value.request_id) == ("Record not found", "r2")


@given(st.binary(max_size=300), st.integers(300, 599))
def test_no_body_breaks_a_refusal(body: bytes, status: int) -> None:
    with pytest.raises(HandoffApiError):
        Course(versions.clone("s", 1), [reply(status, body)] * 3).run()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "malformed"),
        (b"{}", "missing required field `id`"),
        (CREATED.body.replace(b'"name":"n"', b'"name":5'), r"\$\.name"),
        (CREATED.body.replace(b'00Z"', b'00"'), "timezone.*created_at"),
    ],
)
def test_a_body_that_does_not_fit_is_an_error_that_names_the_place(body: bytes, said: str) -> None:
    with pytest.raises(Unexpected, match=said) as caught:
        Course(services.get("s"), [reply(200, body)]).run()
    assert caught.value.code == "unexpected_answer"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, 1e12),
        (
            {
                "date": "Tue, 24 Nov 2026 16:00:00 GMT",
                "retry-after": "Tue, 24 Nov 2026 16:00:09 GMT",
            },
            9,
        ),
        (
            {"date": "Tue, 24 Nov 2026 16:00:00 GMT", "fastly-ratelimit-reset": "1795536010"},
            10,
        ),
        ({"fastly-ratelimit-reset": "1795536010"}, None),
        ({"date": "Tue, 24 Nov 2026 16:00:00 GMT", "fastly-ratelimit-reset": "5"}, 0),
    ],
)
def test_when_to_ask_again_is_told_by_the_answer_alone(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


NAMES = ("retry-after", "date", "fastly-ratelimit-reset")


@given(st.dictionaries(st.sampled_from(NAMES), st.text()))
def test_no_header_breaks_that(headers: dict[str, str]) -> None:
    found = retry_after(headers)
    assert found is None or found >= 0
