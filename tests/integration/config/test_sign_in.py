"""Signing in: what it gives, what it refuses and how alike, and when it locks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from sqlalchemy import func, select, update

from handoff_common.clock import ManualClock
from handoff_common.events import AccessSnapshot
from handoff_config import tables
from handoff_config.credentials import Credential
from handoff_config.sign_in import SignIn
from support.config_system import ConfigSystem, Person, config_system
from support.databases import Engine

PASSWORD = "correct horse battery"
LOGIN = "Me@acme.example"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 1, 10, tzinfo=UTC))


@pytest.fixture
async def timed(tmp_path: Path, clock: ManualClock, engine: Engine) -> AsyncIterator[ConfigSystem]:
    async with config_system(tmp_path, clock) as running:
        yield running
        assert await running.store.differences() == []


async def make_user(system: ConfigSystem, login: str = LOGIN, **more: Any) -> dict[str, Any]:
    """A user with a password, of a customer of its own."""
    operator = system.operator
    body = {"name": f"Acme {login}", "account_type": "paid"}
    customer = await operator.ok("POST", "/v1/customers", json=body)
    user = {"login": login, "name": "Me", "role": "engineer", "password": PASSWORD, **more}
    path = f"/v1/customers/{customer['id']}/users"
    made: dict[str, Any] = await operator.ok("POST", path, json=user)
    return made


async def sign_in(
    system: ConfigSystem,
    login: str = LOGIN,
    password: str = PASSWORD,
    *,
    address: str = "127.0.0.1",
) -> httpx.Response:
    nobody = system.person("", address=address)
    return await nobody.post("/v1/sessions", json={"login": login, "password": password})


def code(answer: httpx.Response) -> str:
    return str(answer.json()["type"].rpartition(":")[2])


def alike(answer: httpx.Response) -> Any:
    """All that an answer says, but for what is every answer's own."""
    headers = {k: v for k, v in answer.headers.items() if k != "x-request-id"}
    body = {k: v for k, v in answer.json().items() if k != "request_id"}
    return answer.status_code, headers, body


async def test_a_session_is_a_token_until_it_ends(timed: ConfigSystem, clock: ManualClock) -> None:
    user = await make_user(timed)
    answer = await sign_in(timed, "me@ACME.example")
    assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert made["user"] == {
        "id": user["id"],
        "login": LOGIN,
        "name": "Me",
        "role": "engineer",
    }
    assert made["customer"] == {"id": user["customer_id"], "name": f"Acme {LOGIN}"}
    assert datetime.fromisoformat(made["expires_at"]) == datetime(2026, 11, 1, 22, tzinfo=UTC)

    me = timed.person(made["access_token"])
    shown = await me.ok("GET", "/tokens/self")
    assert (shown["id"], shown["session"], shown["name"]) == (made["token_id"], True, "session")
    assert (shown["scope"], shown["user_id"]) == ("global", user["id"])
    told = (await timed.told("handoff.access.v1", made["token_id"]))[-1]
    assert isinstance(told, AccessSnapshot)
    assert (told.data.role, told.data.user_id) == ("engineer", user["id"])
    other = await me.ok("POST", "/tokens", data={"name": "ci"})
    listed = {t["id"]: t["session"] for t in await me.ok("GET", "/tokens")}
    assert listed == {made["token_id"]: True, other["id"]: False}

    clock.advance(seconds=12 * 3_600 - 1)
    assert (await me.get("/tokens/self")).status_code == 200
    clock.advance(seconds=1)
    assert (await me.get("/tokens/self")).status_code == 401


async def test_signing_out_ends_one_session(timed: ConfigSystem) -> None:
    await make_user(timed)
    first, second = [timed.person((await sign_in(timed)).json()["access_token"]) for _ in "ab"]
    assert (await first.delete("/tokens/self")).status_code == 204
    assert (await first.get("/tokens/self")).status_code == 401
    assert (await second.get("/tokens/self")).status_code == 200


async def test_how_long_a_session_lasts_is_a_setting(tmp_path: Path, clock: ManualClock) -> None:
    async with config_system(tmp_path, clock, session_hours=1) as system:
        await make_user(system)
        ends = (await sign_in(system)).json()["expires_at"]
    assert datetime.fromisoformat(ends) == datetime(2026, 11, 1, 11, tzinfo=UTC)


async def test_a_sign_in_is_in_the_history_as_the_users_own(timed: ConfigSystem) -> None:
    user = await make_user(timed)
    made = (await sign_in(timed, address="192.0.2.9")).json()
    [entry, *_] = (await timed.operator.ok("GET", "/v1/history"))["data"]
    assert (entry["type"], entry["name"]) == ("token.created", made["token_id"])
    assert entry["after"]["session"] is True
    assert entry["actor"] == {"token_id": None, "user_id": user["id"], "login": LOGIN}
    assert entry["ip"] == "192.0.2.9"


async def test_every_failure_is_answered_alike(timed: ConfigSystem) -> None:
    await make_user(timed)
    await make_user(timed, "without@acme.example", password=None)
    gone = await make_user(timed, "gone@acme.example")
    assert (await timed.operator.delete(f"/v1/users/{gone['id']}")).status_code == 204
    answers = [
        await sign_in(timed, LOGIN, "wrong password"),
        await sign_in(timed, LOGIN, PASSWORD.upper()),
        await sign_in(timed, LOGIN, ""),
        await sign_in(timed, "nobody@acme.example"),
        await sign_in(timed, "without@acme.example"),
        await sign_in(timed, "gone@acme.example"),
        await sign_in(timed, "zero\x00"),
        await sign_in(timed, "", ""),
    ]
    assert alike(answers[0])[0] == 401 and code(answers[0]) == "sign_in_failed"
    assert answers[0].headers["www-authenticate"] == "Bearer"
    for answer in answers[1:]:
        assert alike(answer) == alike(answers[0])


async def test_a_login_nobody_has_costs_a_hash_too(
    timed: ConfigSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []
    real = PasswordHasher.verify

    def verify(self: PasswordHasher, known: Any, password: Any) -> Any:
        verified.append(known.rpartition("$")[0].rpartition("$")[0])
        return real(self, known, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    await make_user(timed)
    await make_user(timed, "without@acme.example", password=None)
    for login in (LOGIN, "nobody@acme.example", "without@acme.example"):
        assert code(await sign_in(timed, login, "wrong password")) == "sign_in_failed"
    assert len(verified) == 3 and len(set(verified)) == 1, "each with the same parameters"


@pytest.mark.parametrize("login", [LOGIN, "nobody@acme.example"])
async def test_ten_failures_lock_a_login_whoever_has_it(
    tmp_path: Path, clock: ManualClock, engine: Engine, login: str
) -> None:
    async with config_system(tmp_path, clock) as system:
        await make_user(system)
        for number in range(10):
            answer = await sign_in(system, login, "wrong password", address=f"192.0.2.{number}")
            assert code(answer) == "sign_in_failed"
            clock.advance(seconds=10)
        locked = await sign_in(system, login, PASSWORD)
        assert (locked.status_code, code(locked)) == (429, "too_many_sign_ins")
        # The first of the ten was 100 s ago.
        assert locked.headers["retry-after"] == "800"
        assert login not in locked.text
    # What a restart, or another pod, knows is the same.
    async with config_system(tmp_path, clock) as system:
        clock.advance(seconds=799)
        again = await sign_in(system, login.upper(), PASSWORD)
        assert (again.status_code, again.headers["retry-after"]) == (429, "1")
        clock.advance(seconds=1)
        assert (await sign_in(system, login, PASSWORD)).status_code == (
            201 if login == LOGIN else 401
        )


async def test_a_lock_says_nothing_of_who_has_the_login(timed: ConfigSystem) -> None:
    await make_user(timed)
    answers = []
    for login in (LOGIN, "nobody@acme.example"):
        for _ in range(10):
            await sign_in(timed, login, "wrong password")
        answers.append(alike(await sign_in(timed, login, "wrong password")))
    assert answers[0] == answers[1] and answers[0][0] == 429


async def test_others_are_not_locked_with_a_login(timed: ConfigSystem) -> None:
    await make_user(timed)
    await make_user(timed, "other@acme.example")
    codes = [(await sign_in(timed, LOGIN, "wrong password")).status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    assert (await sign_in(timed, "other@acme.example")).status_code == 201


async def test_a_success_takes_the_failures_back(timed: ConfigSystem) -> None:
    await make_user(timed)
    for _ in range(3):
        for _ in range(9):
            assert (await sign_in(timed, LOGIN, "wrong password")).status_code == 401
        assert (await sign_in(timed)).status_code == 201


async def test_guesses_at_the_same_time_are_counted_too(timed: ConfigSystem) -> None:
    await make_user(timed)
    answers = await asyncio.gather(
        *(sign_in(timed, LOGIN, f"wrong password {n}") for n in range(30))
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [401] * 10 + [429] * 20


async def test_one_address_cannot_try_many_logins(timed: ConfigSystem, clock: ManualClock) -> None:
    await make_user(timed)
    for batch in range(4):
        answers = await asyncio.gather(
            *(
                # Another address of the same network each time.
                sign_in(timed, f"n{batch}-{n}@acme.example", address=f"2001:db8::{n:x}")
                for n in range(25)
            )
        )
        assert {answer.status_code for answer in answers} == {401}
    locked = await sign_in(timed, LOGIN, PASSWORD, address="2001:db8::ffff")
    assert code(locked) == "too_many_sign_ins" and locked.headers["retry-after"] == "900"
    assert (await sign_in(timed, LOGIN, PASSWORD, address="2001:db8:0:1::1")).status_code == 201
    clock.advance(seconds=900)
    assert (await sign_in(timed, LOGIN, PASSWORD, address="2001:db8::ffff")).status_code == 201


async def test_failures_are_forgotten_once_they_do_not_count(
    timed: ConfigSystem, clock: ManualClock
) -> None:
    async def kept() -> int:
        async with timed.db.read() as tx:
            return int(
                await tx.scalar(select(func.count()).select_from(tables.sign_in_failures)) or 0
            )

    for number in range(20):
        await sign_in(timed, f"{number}@acme.example")
    assert await kept() == 20
    clock.advance(seconds=900)
    await sign_in(timed, "one more")
    assert await kept() == 1


async def test_a_password_changed_meanwhile_does_not_sign_in(
    timed: ConfigSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await make_user(timed)
    better = SignIn.better

    async def changed_first(self: SignIn, found: Credential, password: str) -> str | None:
        path = f"/v1/users/{user['id']}/password"
        await timed.operator.ok("PUT", path, json={"password": "another password"})
        return await better(self, found, password)

    with monkeypatch.context() as patched:
        patched.setattr(SignIn, "better", changed_first)
        assert code(await sign_in(timed)) == "sign_in_failed"
    assert (await sign_in(timed, LOGIN, "another password")).status_code == 201


async def test_an_older_hash_is_made_anew(timed: ConfigSystem) -> None:
    user = await make_user(timed)
    table = tables.passwords
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    async with timed.db.transaction() as tx:
        await tx.execute(update(table).where(table.c.user_id == user["id"]).values(hash=old))
    assert (await sign_in(timed)).status_code == 201
    async with timed.db.read() as tx:
        kept = await tx.scalar(select(table.c.hash).where(table.c.user_id == user["id"]))
    assert kept != old and "m=19456" in str(kept)
    assert (await sign_in(timed)).status_code == 201


async def test_a_token_makes_no_difference(timed: ConfigSystem) -> None:
    await make_user(timed)
    for token in ("nonsense", timed.operator.token):
        person = timed.person(token)
        body = {"login": LOGIN, "password": PASSWORD}
        assert (await person.post("/v1/sessions", json=body)).status_code == 201
        body["password"] = "wrong password"
        assert code(await person.post("/v1/sessions", json=body)) == "sign_in_failed"


SECRET = "hunter2 hunter2"


@pytest.mark.parametrize(
    "body",
    [
        {"login": LOGIN, "pasword": SECRET},
        {"login": LOGIN, "password": [SECRET]},
        {"login": LOGIN, "password": SECRET + "x" * 300},
        {"login": {"password": SECRET}, "password": ""},
        {"login": SECRET * 30, "password": ""},
        [SECRET],
        SECRET,
    ],
)
async def test_what_was_given_is_not_repeated(timed: ConfigSystem, body: Any) -> None:
    nobody: Person = timed.person("")
    answer = await nobody.post("/v1/sessions", json=body)
    assert answer.status_code == 422 and "hunter2" not in answer.text
    assert answer.json()["errors"]
    raw = await nobody.post("/v1/sessions", content=f"{{{SECRET}")
    assert raw.status_code in (400, 422) and "hunter2" not in raw.text
