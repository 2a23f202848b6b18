"""Passwords: who sets whose, what that ends, and where nothing of them is."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from handoff_common.clock import SystemClock
from handoff_config import tables
from support.config_system import ConfigSystem, Person, Tenant, config_system

GOOD = "correct horse battery"
OTHER = "another long password"


async def set_password(
    person: Person, user_id: str, password: str = GOOD, current: str | None = None
) -> httpx.Response:
    body = {"password": password} | ({} if current is None else {"current_password": current})
    return await person.put(f"/v1/users/{user_id}/password", json=body)


async def sign_in(system: ConfigSystem, login: str, password: str = GOOD) -> httpx.Response:
    nobody = system.person("")
    return await nobody.post("/v1/sessions", json={"login": login, "password": password})


def code(answer: httpx.Response) -> str:
    return str(answer.json()["type"].rpartition(":")[2])


async def test_who_may_set_whose(system: ConfigSystem, acme: Tenant) -> None:
    other = await system.tenant("Other")
    for person, target, status in (
        (acme.superuser, acme.engineer, 204),
        (acme.superuser, acme.superuser, 204),
        (system.operator, acme.billing, 204),
        (system.operator, other.user, 204),
        (acme.user, acme.user, 204),
        (acme.engineer, acme.user, 403),
        (acme.billing, acme.superuser, 403),
        (acme.superuser, other.user, 404),
        (acme.engineer, other.user, 404),
    ):
        answer = await set_password(person, target.user_id)
        assert answer.status_code == status, answer.text
    assert (await set_password(system.operator, "nobody")).status_code == 404
    assert (await set_password(system.person(""), acme.user.user_id)).status_code == 401
    for login in ("engineer@acme.example", "user@other.example"):
        assert (await sign_in(system, login)).status_code == 201


async def test_a_reading_token_sets_none(system: ConfigSystem, acme: Tenant) -> None:
    made = await acme.user.ok("POST", "/tokens", json={"scope": "global:read"})
    reader = system.person(made["access_token"])
    assert (await set_password(reader, acme.user.user_id)).status_code == 403


async def test_ones_own_needs_the_present_one(system: ConfigSystem, acme: Tenant) -> None:
    me, login = acme.superuser, "superuser@acme.example"
    too_early = await set_password(me, me.user_id, GOOD, "there is none yet")
    assert code(too_early) == "wrong_current_password"
    assert (await set_password(me, me.user_id)).status_code == 204
    missing = await set_password(me, me.user_id, OTHER)
    assert missing.status_code == 422
    assert [e["property"] for e in missing.json()["errors"]] == ["current_password"]
    wrong = await set_password(me, me.user_id, OTHER, "not the present one")
    assert (wrong.status_code, code(wrong)) == (403, "wrong_current_password")
    assert "not the present one" not in wrong.text
    assert (await sign_in(system, login)).status_code == 201
    assert (await set_password(me, me.user_id, OTHER, GOOD)).status_code == 204
    assert (await sign_in(system, login)).status_code == 401
    assert (await sign_in(system, login, OTHER)).status_code == 201


async def test_guessing_the_present_one_locks_the_login(system: ConfigSystem, acme: Tenant) -> None:
    me = acme.user
    assert (await set_password(acme.superuser, me.user_id)).status_code == 204
    for _ in range(10):
        wrong = await set_password(me, me.user_id, OTHER, "not the present one")
        assert wrong.status_code == 403
    locked = await set_password(me, me.user_id, OTHER, GOOD)
    assert (locked.status_code, code(locked)) == (429, "too_many_sign_ins")
    assert (await sign_in(system, "user@acme.example")).status_code == 429
    # Somebody who may set it lets the user in at once.
    assert (await set_password(acme.superuser, me.user_id, OTHER)).status_code == 204
    assert (await sign_in(system, "user@acme.example", OTHER)).status_code == 201


async def test_a_new_one_ends_sessions_and_no_other_token(
    system: ConfigSystem, acme: Tenant
) -> None:
    await set_password(acme.superuser, acme.engineer.user_id)
    await set_password(acme.superuser, acme.user.user_id)
    login = "engineer@acme.example"
    sessions = [
        system.person((await sign_in(system, login)).json()["access_token"]) for _ in range(2)
    ]
    other = system.person((await sign_in(system, "user@acme.example")).json()["access_token"])
    assert (await set_password(sessions[0], acme.engineer.user_id, OTHER, GOOD)).status_code == 204
    for session in sessions:
        assert (await session.get("/tokens/self")).status_code == 401
    for person in (acme.engineer, other):
        assert (await person.get("/tokens/self")).status_code == 200


@pytest.mark.parametrize(
    ("password", "why"),
    [("too short", "has 9 characters"), ("y" * 257, "257 characters"), (" ", "has 1 char")],
)
async def test_wrong_ones_are_refused_unrepeated(acme: Tenant, password: str, why: str) -> None:
    path = f"/v1/customers/{acme.customer_id}/users"
    new = {"login": "new@acme.example", "role": "user", "password": password}
    for answer in (
        await set_password(acme.superuser, acme.user.user_id, password),
        await acme.superuser.post(path, json=new),
    ):
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["property"] == "password" and why in error["reason"]
        assert "12 to 256" in error["reason"]
        assert len(password) == 1 or password not in answer.text


async def test_the_login_is_no_password(acme: Tenant) -> None:
    answer = await set_password(acme.superuser, acme.user.user_id, "USER@acme.example")
    assert answer.status_code == 422 and "is the login" in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"pasword": "hunter2 hunter2"},
        {"password": ["hunter2 hunter2"]},
        {"password": GOOD, "current_password": {"is": "hunter2"}},
        ["hunter2"],
    ],
)
async def test_no_refusal_repeats_what_was_given(acme: Tenant, body: Any) -> None:
    answers = [await acme.superuser.put(f"/v1/users/{acme.user.user_id}/password", json=body)]
    if isinstance(body, dict):
        new = {"login": "new@acme.example", "role": "king", **body}
        path = f"/v1/customers/{acme.customer_id}/users"
        answers.append(await acme.superuser.post(path, json=new))
        assert "king" in answers[1].text, "what is no secret is shown"
    for answer in answers:
        assert answer.status_code == 422 and "hunter2" not in answer.text


async def test_users_are_made_with_a_password_or_without(
    system: ConfigSystem, acme: Tenant
) -> None:
    path = f"/v1/customers/{acme.customer_id}/users"
    new = {"login": "with@acme.example", "name": "W", "role": "billing", "password": GOOD}
    made = await acme.superuser.ok("POST", path, json=new)
    assert made["password_set_at"] is not None and "password" not in made
    assert (await sign_in(system, "with@acme.example")).json()["user"]["id"] == made["id"]
    assert (await acme.user.ok("GET", "/current_user"))["password_set_at"] is None
    changed = await acme.superuser.ok("PUT", f"/user/{made['id']}", data={"role": "user"})
    assert changed["password_set_at"] == made["password_set_at"]
    renamed = {"login": "renamed@acme.example"}
    await acme.superuser.ok("PATCH", f"/v1/users/{made['id']}", json=renamed)
    assert (await sign_in(system, "renamed@acme.example")).status_code == 201
    assert (await sign_in(system, "with@acme.example")).status_code == 401


async def test_a_repeated_request_is_not_kept_with_its_password(
    system: ConfigSystem, acme: Tenant
) -> None:
    path = f"/v1/customers/{acme.customer_id}/users"
    new = {"login": "new@acme.example", "role": "billing", "password": GOOD}
    key = {"Idempotency-Key": "one"}
    first = await acme.superuser.post(path, json=new, headers=key)
    again = await acme.superuser.post(path, json=new, headers=key)
    # A fingerprint that the password goes into could be guessed at.
    other = await acme.superuser.post(path, json=new | {"password": OTHER}, headers=key)
    for answer in (again, other):
        assert answer.headers["idempotent-replayed"] == "true"
        assert answer.json() == first.json()
    assert (await sign_in(system, "new@acme.example")).status_code == 201
    without = await acme.superuser.post(path, json=new | {"password": None}, headers=key)
    assert code(without) == "idempotency_key_reused"


async def test_that_it_was_set_is_history(system: ConfigSystem, acme: Tenant) -> None:
    await set_password(acme.superuser, acme.user.user_id)
    [entry, *_] = (await acme.superuser.ok("GET", "/v1/history"))["data"]
    assert (entry["type"], entry["name"]) == ("user.password_set", acme.user.user_id)
    assert entry["actor"]["user_id"] == acme.superuser.user_id
    assert GOOD not in json.dumps(entry) and "argon2" not in json.dumps(entry)


async def test_password_and_hash_are_where_they_belong_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with config_system(tmp_path, SystemClock()) as system:
        acme = await system.tenant()
        path = f"/v1/customers/{acme.customer_id}/users"
        new = {"login": "new@acme.example", "role": "billing", "password": GOOD}
        key = {"Idempotency-Key": "one"}
        made = await acme.superuser.ok("POST", path, json=new, headers=key)
        await set_password(acme.superuser, acme.user.user_id, OTHER)
        token = (await sign_in(system, "new@acme.example")).json()["access_token"]
        await set_password(system.person(token), made["id"], OTHER, GOOD)
        await sign_in(system, "new@acme.example", "hunter2 hunter2")
        await sign_in(system, "hunter2 hunter2", "x")
        kept = {}
        async with system.db.read() as tx:
            for table in tables.metadata.sorted_tables:
                kept[table.name] = repr((await tx.execute(select(table))).all())
    assert kept["passwords"].count("$argon2id$") == 2
    del kept["passwords"]
    said = "".join(capfd.readouterr())
    for name, text in {**kept, "logs": said}.items():
        for secret in (GOOD, OTHER, "hunter2", "argon2", token):
            assert secret not in text, name
    for file in tmp_path.iterdir():
        octets = file.read_bytes()
        assert file.name.startswith("config.db") or b"argon2" not in octets, file
        assert not any(text.encode() in octets for text in (GOOD, OTHER, "hunter2", token)), file


async def test_a_hash_goes_with_its_user(system: ConfigSystem, acme: Tenant) -> None:
    async def kept() -> set[str]:
        async with system.db.read() as tx:
            return set(await tx.scalars(select(tables.passwords.c.user_id)))

    other = await system.tenant("Other")
    for person in (acme.user, acme.billing, other.user):
        await set_password(system.operator, person.user_id)
    assert await kept() == {p.user_id for p in (acme.user, acme.billing, other.user)}
    assert (await acme.superuser.delete(f"/v1/users/{acme.user.user_id}")).status_code == 204
    assert await kept() == {acme.billing.user_id, other.user.user_id}
    assert (await system.operator.delete(f"/v1/customers/{acme.customer_id}")).status_code == 204
    assert await kept() == {other.user.user_id}
    assert (await sign_in(system, "billing@acme.example")).status_code == 401


async def test_of_two_at_the_same_time_the_present_one_holds_for_one(
    system: ConfigSystem, acme: Tenant
) -> None:
    me = acme.user
    await set_password(acme.superuser, me.user_id)
    answers = await asyncio.gather(
        *(set_password(me, me.user_id, f"long password {n}", GOOD) for n in range(4))
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [204, 403, 403, 403]
    [winner] = [n for n, answer in enumerate(answers) if answer.status_code == 204]
    signed_in = await sign_in(system, "user@acme.example", f"long password {winner}")
    assert signed_in.status_code == 201
