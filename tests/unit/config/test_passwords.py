"""Passwords: what they may be, when a login or an address is locked, what a set one ends."""

import asyncio
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from handoff_common.errors import ApiError
from handoff_config import account_commands as commands
from handoff_config import history, snapshots, views
from handoff_config.account_commands import MAX_SESSIONS, Asking, NewToken
from handoff_config.contracts import FORGET_SESSIONS_AFTER_MS, Customer, PasswordSet, fold
from handoff_config.hashing import Hasher
from handoff_config.passwords import (
    FAILURES_PER_LOGIN,
    WINDOW_MS,
    locked_until,
    login_key,
    octets,
    problem,
    source_of,
)
from handoff_config.streams import CUSTOMER, encode

NOW = 1_700_000_000_000
OPERATOR = Asking("operator", None)
GOOD = "correct horse battery"

instants = st.lists(st.integers(NOW - 2 * WINDOW_MS, NOW), max_size=30)
allowances = st.integers(1, 12)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("x" * 11, "has 11 characters"),
        ("", "has 0 characters"),
        ("x" * 257, "has 257 characters"),
        ("Someone@Example.com", "is the login"),
        ("ｓomeone@example.com", "is the login"),
        ("half a pair \ud800", "no character"),
        ("zero inside \x00", "no character"),
    ],
)
def test_wrong_passwords_are_refused_without_being_repeated(password: str, why: str) -> None:
    found = problem("password", password, "someone@example.com")
    assert found is not None and found.property == "password"
    assert why in found.reason and "12 to 256 characters" in found.reason
    assert not password or password not in found.reason


@pytest.mark.parametrize(
    "password", ["x" * 12, "x" * 256, "пароль длинный", "with  blanks inside "]
)
def test_long_enough_is_enough(password: str) -> None:
    assert problem("password", password, "someone@example.com") is None


def test_the_same_text_is_the_same_password_however_it_was_typed() -> None:
    assert octets("caf\u00e9 caf\u00e9 caf\u00e9") == octets("cafe\u0301 cafe\u0301 cafe\u0301")
    assert octets("\ud800")


@given(instants, allowances)
def test_locked_while_as_many_failures_as_are_allowed_lie_in_the_window(
    failures: list[int], allowed: int
) -> None:
    recent = [at for at in failures if at > NOW - WINDOW_MS]
    assert (locked_until(failures, allowed, NOW) is not None) == (len(recent) >= allowed)


@given(instants, allowances)
def test_a_lock_ends_at_its_end_and_not_before(failures: list[int], allowed: int) -> None:
    until = locked_until(failures, allowed, NOW)
    if until is not None:
        assert NOW < until <= NOW + WINDOW_MS
        assert locked_until(failures, allowed, until) is None
        assert locked_until(failures, allowed, until - 1) == until


@given(instants, instants, allowances)
def test_more_failures_never_shorten_a_lock(
    failures: list[int], more: list[int], allowed: int
) -> None:
    before = locked_until(failures, allowed, NOW)
    after = locked_until([*more, *failures], allowed, NOW)
    assert before is None or (after is not None and after >= before)
    assert locked_until([*failures, *more], allowed, NOW) == after


@given(st.lists(st.integers(0, 2_000_000), max_size=60))
def test_whoever_keeps_guessing_gets_ten_guesses_in_any_window(waits: list[int]) -> None:
    guesses: list[int] = []
    now = NOW
    for wait in waits:
        now += wait
        if locked_until(guesses, FAILURES_PER_LOGIN, now) is None:
            guesses.append(now)
    for at in guesses:
        assert sum(at - WINDOW_MS < other <= at for other in guesses) <= FAILURES_PER_LOGIN


def test_logins_are_counted_as_they_are_compared() -> None:
    assert login_key("A@Example.com") == login_key("a@example.COM") != login_key("b@example.com")
    assert "example" not in login_key("a@example.com")
    assert login_key("\ud800")


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("x" * 80, "x" * 64),
    ],
)
def test_who_has_one_address_of_a_network_has_them_all(address: str, source: str) -> None:
    assert source_of(address) == source


# --- What is in the stream ---------------------------------------------------------------------


def do(state: Customer | None, events: Any, at_ms: int = NOW) -> Customer:
    for event in events:
        state = fold(state, event, at_ms)
    assert state is not None
    return state


def customer() -> Customer:
    state = do(None, commands.create_customer("cu", {"name": "A", "account_type": "trial"}))
    for user_id, role in (("sup", "superuser"), ("eng", "engineer")):
        new = {"login": f"{user_id}@acme.example", "role": role}
        state = do(state, commands.create_user(state, user_id, new))
    return state


def new(token_id: str, ends_ms: int | None = NOW + 1_000) -> NewToken:
    return NewToken(token_id, f"hash-{token_id}", "session", "global", ends_ms)


@pytest.mark.parametrize(
    ("asking", "user", "status"),
    [
        (Asking("engineer", "eng"), "eng", None),
        (Asking("engineer", "eng"), "sup", 403),
        (Asking("superuser", "sup"), "eng", None),
        (OPERATOR, "sup", None),
        (OPERATOR, "nobody", 404),
    ],
)
def test_who_may_set_whose_password(asking: Asking, user: str, status: int | None) -> None:
    if status is None:
        assert commands.set_password(customer(), user, GOOD, asking) == (PasswordSet(user),)
        return
    with pytest.raises(ApiError) as caught:
        commands.set_password(customer(), user, GOOD, asking)
    assert caught.value.status == status


def test_a_new_password_ends_the_users_sessions_and_nothing_else() -> None:
    state = customer()
    state = do(state, commands.create_session(state, "eng", new("mine"), NOW))
    state = do(state, commands.create_session(state, "sup", new("other"), NOW))
    state = do(state, commands.create_token(state, "eng", new("token"), OPERATOR, NOW))
    before = state
    state = do(state, commands.set_password(state, "eng", GOOD, OPERATOR), NOW + 5)
    assert {t.token_id for t in state.tokens.values() if not t.in_force(NOW + 5)} == {"mine"}
    assert snapshots.of_customer_tokens(state, 7)["mine"].revoked_at is not None
    told = CUSTOMER.messages(before, state, 7, NOW)
    assert [m.key for topic, m in told if topic == "handoff.access.v1"] == ["mine"]
    assert state.users["eng"].password_set_ms == NOW + 5


def test_a_changed_user_keeps_the_instant_of_its_password() -> None:
    state = customer()
    stale = commands.update_user(state, "eng", {"role": "billing"})
    state = do(state, commands.set_password(state, "eng", GOOD, OPERATOR), NOW + 5)
    state = do(state, stale, NOW + 6)
    assert state.users["eng"].password_set_ms == NOW + 5


def test_a_set_password_is_history_without_the_password() -> None:
    state = customer()
    (event,) = commands.set_password(state, "eng", GOOD, OPERATOR)
    after = do(state, [event])
    change = history.change(state, event, after)
    assert (change.object, change.name) == ("user", "eng")
    assert change.before != change.after
    for text in (encode(event), encode(change), encode(after)):
        assert GOOD not in text
    assert CUSTOMER.events.decode(encode(event)) == event


def test_sessions_are_tokens_that_say_so() -> None:
    state = customer()
    state = do(state, commands.create_session(state, "eng", new("s"), NOW))
    state = do(state, commands.create_token(state, "eng", new("t"), OPERATOR, NOW))
    assert views.token("cu", state.tokens["s"])["session"] is True
    assert views.token("cu", state.tokens["t"])["session"] is False


def test_a_user_who_is_gone_cannot_sign_in() -> None:
    state = customer()
    deleted = do(state, commands.delete_user(state, "eng"))
    for gone in (None, deleted, do(state, commands.delete_customer(state, 0))):
        with pytest.raises(ApiError) as caught:
            commands.create_session(gone, "eng", new("s"), NOW)
        assert caught.value.code == "sign_in_failed"


def test_the_oldest_of_too_many_sessions_ends() -> None:
    state = customer()
    for number in range(MAX_SESSIONS + 3):
        events = commands.create_session(state, "eng", new(f"s{number:02}"), NOW + number)
        state = do(state, events, NOW + number)
    ended = [t.token_id for t in state.tokens.values() if t.revoked_ms is not None]
    assert ended == ["s00", "s01", "s02"]


def test_ended_sessions_leave_the_state_after_a_day() -> None:
    state = customer()
    state = do(state, commands.create_session(state, "eng", new("old"), NOW))
    later = NOW + 1_000 + FORGET_SESSIONS_AFTER_MS
    events = commands.create_session(state, "eng", new("new", later + 9), later)
    assert set(do(state, events, later - 1).tokens) == {"old", "new"}
    assert set(do(state, events, later).tokens) == {"new"}


# --- Hashes ------------------------------------------------------------------------------------


async def test_a_hash_is_of_one_password_and_salted() -> None:
    hasher = Hasher()
    one, two = await hasher.hash(GOOD), await hasher.hash(GOOD)
    assert one != two and one.startswith("$argon2id$")
    assert await hasher.matches(one, GOOD)
    assert not await hasher.matches(one, GOOD + "!")
    assert not await hasher.matches(None, GOOD)
    assert not await hasher.matches(None, "nobody's")
    assert not hasher.is_outdated(one)
    assert hasher.is_outdated(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD))


async def test_too_many_at_once_are_refused_and_the_others_are_hashed() -> None:
    hasher = Hasher(most=3)
    found = await asyncio.gather(*(hasher.hash(GOOD) for _ in range(5)), return_exceptions=True)
    refused = [one for one in found if isinstance(one, ApiError)]
    assert [one.code for one in refused] == ["sign_in_busy"] * 2
    assert await hasher.hash(GOOD)
