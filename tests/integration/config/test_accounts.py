"""Customers, users, tokens: roles, scopes, tenants, revocation."""

from pathlib import Path
from typing import Any

import pytest

from handoff_common.clock import SystemClock
from handoff_common.events import AccessSnapshot
from support.config_system import ConfigSystem, Tenant, config_system


async def test_a_token_works_at_once_and_ends_at_once(system: ConfigSystem, acme: Tenant) -> None:
    made = await acme.user.ok("POST", "/tokens", data={"name": "ci", "scope": "global"})
    assert len(made["access_token"]) == 32
    assert made["user_id"] == acme.user.user_id
    assert "expires_at" not in made
    other = system.person(made["access_token"])
    assert (await other.ok("GET", "/tokens/self"))["id"] == made["id"]
    told = (await system.told("handoff.access.v1", made["id"]))[-1]
    assert isinstance(told, AccessSnapshot)
    assert (told.data.role, told.data.customer_id) == ("user", acme.customer_id)
    assert made["access_token"] not in (await acme.user.get(f"/tokens/{made['id']}")).text
    assert (await other.delete("/tokens/self")).status_code == 204
    assert (await other.get("/tokens/self")).status_code == 401
    assert (await acme.user.delete(f"/tokens/{made['id']}")).status_code == 204


async def test_tokens_are_nowhere_in_the_data(system: ConfigSystem, acme: Tenant) -> None:
    token = acme.engineer.token.encode()
    for file in system.folder.iterdir():
        if file.name != "operator-token":
            assert token not in file.read_bytes(), file


@pytest.mark.parametrize("header", ["Fastly-Key", "Authorization"])
async def test_no_valid_token_is_401(system: ConfigSystem, header: str) -> None:
    nobody = system.person("", headers={header: "Bearer nonsense", "Fastly-Key": ""})
    for path in ("/service", "/v1/customers", "/enabled-products/v1/websockets/services"):
        assert (await nobody.get(path)).status_code == 401


async def test_bearer_tokens_work_too(system: ConfigSystem, acme: Tenant) -> None:
    headers = {"Authorization": f"Bearer {acme.user.token}", "Fastly-Key": ""}
    person = system.person("", headers=headers)
    assert (await person.get("/current_user")).json()["login"] == "user@acme.example"


async def test_a_reading_token_reads_only(system: ConfigSystem, acme: Tenant) -> None:
    made = await acme.engineer.ok("POST", "/tokens", json={"scope": "global:read"})
    reader = system.person(made["access_token"])
    assert (await reader.get("/service")).status_code == 200
    for refused in (
        await reader.post("/service", data={"name": "x"}),
        await reader.post("/tokens", data={}),
    ):
        assert refused.status_code == 403
        assert "global:read" in refused.json()["detail"]


async def test_wrong_tokens_are_refused(acme: Tenant) -> None:
    for values, field in (
        ({"scope": "purge_all"}, "scope"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"services": ["a"]}, "services"),
    ):
        refused = await acme.user.post("/tokens", json=values)
        assert refused.status_code == 422
        assert field in refused.json()["detail"]


async def test_who_may_make_tokens_for_whom(acme: Tenant) -> None:
    for person, target, status in (
        (acme.engineer, acme.engineer, 201),
        (acme.engineer, acme.user, 403),
        (acme.superuser, acme.engineer, 201),
        (acme.billing, acme.superuser, 403),
    ):
        path = f"/v1/users/{target.user_id}/tokens"
        answer = await person.post(path, json={"name": "x"})
        assert answer.status_code == status
        if status == 201:
            assert set(answer.json()) >= {"id", "access_token"}
    assert len(await acme.superuser.ok("GET", f"/customer/{acme.customer_id}/tokens")) == 6
    assert (await acme.engineer.get(f"/customer/{acme.customer_id}/tokens")).status_code == 403
    assert len(await acme.engineer.ok("GET", "/tokens")) == 3


async def test_a_new_role_holds_at_once_and_a_deleted_user_is_out(acme: Tenant) -> None:
    assert (await acme.user.post("/service", data={"name": "a"})).status_code == 403
    path = f"/v1/users/{acme.user.user_id}"
    read = await acme.superuser.get(path)
    changed = await acme.superuser.call(
        "PATCH", path, json={"role": "engineer"}, headers={"if-match": read.headers["etag"]}
    )
    assert changed.json()["role"] == "engineer"
    assert (await acme.user.post("/service", data={"name": "a"})).status_code == 200
    stale = await acme.superuser.call(
        "PATCH", path, json={"role": "user"}, headers={"if-match": read.headers["etag"]}
    )
    assert stale.status_code == 412
    assert (await acme.superuser.delete(path)).status_code == 204
    assert (await acme.user.get("/current_user")).status_code == 401
    assert (await acme.superuser.get(path)).status_code == 404


async def test_users_over_the_classic_paths(acme: Tenant) -> None:
    superuser = acme.superuser
    made = await superuser.ok("POST", "/user", data={"login": "new@acme.example", "name": "New"})
    assert made["role"] == "user"
    path = f"/user/{made['id']}"
    assert (await superuser.ok("PUT", path, data={"role": "billing"}))["role"] == "billing"
    assert await acme.user.ok("GET", path)
    taken = await superuser.post("/user", data={"login": "NEW@acme.example"})
    assert taken.status_code == 409
    assert (await superuser.post("/user", data={"login": "x", "role": "king"})).status_code == 422
    assert (await acme.engineer.post("/user", data={"login": "y"})).status_code == 403
    assert len(await acme.user.ok("GET", f"/customer/{acme.customer_id}/users")) == 5
    listed = await acme.user.ok(
        "GET", f"/v1/customers/{acme.customer_id}/users", params={"limit": 3}
    )
    rest = await acme.user.ok(
        "GET",
        f"/v1/customers/{acme.customer_id}/users",
        params={"limit": 3, "cursor": listed["meta"]["next_cursor"]},
    )
    assert len({u["id"] for u in listed["data"] + rest["data"]}) == 5
    assert rest["meta"]["next_cursor"] is None
    assert await superuser.ok("DELETE", path) == {"status": "ok"}
    last = await superuser.delete(f"/user/{superuser.user_id}")
    assert last.status_code == 409
    assert "last superuser" in last.json()["detail"]
    assert (await acme.user.ok("GET", "/current_customer"))["id"] == acme.customer_id


async def test_customers_are_for_operators(system: ConfigSystem, acme: Tenant) -> None:
    operator = system.operator
    body = {"name": "New", "account_type": "trial", "billing_email": "pay@new.example"}
    for person in (acme.superuser, acme.engineer, acme.billing, acme.user):
        assert (await person.post("/v1/customers", json=body)).status_code == 403
        assert (await person.get("/v1/customers")).status_code == 403
    made = await operator.ok("POST", "/v1/customers", json=body)
    assert len(made["id"]) == 22
    listed = await operator.ok("GET", "/v1/customers", params={"limit": 1})
    assert [c["id"] for c in listed["data"]] == [acme.customer_id]
    cursor = listed["meta"]["next_cursor"]
    listed = await operator.ok("GET", "/v1/customers", params={"limit": 1, "cursor": cursor})
    assert [c["id"] for c in listed["data"]] == [made["id"]]
    assert (await operator.get("/v1/customers", params={"cursor": "x"})).status_code == 400
    assert (await acme.user.get(f"/v1/customers/{acme.customer_id}")).status_code == 200
    assert (await operator.delete(f"/v1/customers/{made['id']}")).status_code == 204
    await acme.engineer.service()
    kept = await operator.delete(f"/v1/customers/{acme.customer_id}")
    assert (kept.status_code, kept.json()["type"]) == (
        409,
        "urn:handoff:error:customer_has_services",
    )
    wrong = await operator.post("/v1/customers", json={**body, "account_type": "gold", "x": 1})
    assert wrong.status_code == 422
    assert {e["property"] for e in wrong.json()["errors"]} == {"account_type", "x"}


async def test_tenants_do_not_see_each_other(system: ConfigSystem, acme: Tenant) -> None:
    other = (await system.tenant("Other")).superuser
    service_id = await acme.engineer.active()
    draft = f"/service/{service_id}/version/1"
    token_id = (await acme.user.ok("GET", "/tokens/self"))["id"]
    contract = (await acme.user.ok("GET", f"/v1/customers/{acme.customer_id}/contracts"))["data"][0]
    reads = [
        f"/service/{service_id}",
        f"/service/{service_id}/details",
        f"/service/{service_id}/domain",
        f"/service/{service_id}/version",
        draft,
        f"{draft}/validate",
        f"{draft}/backend",
        f"{draft}/backend/origin",
        f"/enabled-products/v1/websockets/services/{service_id}",
        f"/v1/services/{service_id}/websockets/check",
        f"/v1/services/{service_id}/limits",
        f"/v1/services/{service_id}/history",
        f"/v1/customers/{acme.customer_id}",
        f"/v1/customers/{acme.customer_id}/users",
        f"/v1/customers/{acme.customer_id}/contracts/{contract['id']}",
        f"/customer/{acme.customer_id}",
        f"/customer/{acme.customer_id}/users",
        f"/customer/{acme.customer_id}/tokens",
        f"/user/{acme.user.user_id}",
        f"/v1/users/{acme.user.user_id}",
        f"/v1/users/{acme.user.user_id}/tokens",
        f"/tokens/{token_id}",
    ]
    for path in reads:
        assert (await other.get(path)).status_code == 404, path
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", f"/service/{service_id}", {"data": {"name": "mine"}}),
        ("DELETE", f"/service/{service_id}", {}),
        ("POST", f"/service/{service_id}/version", {}),
        ("PUT", f"{draft}/clone", {}),
        ("PUT", f"{draft}/deactivate", {}),
        ("POST", f"{draft}/backend", {"data": {"name": "x", "address": "x"}}),
        ("DELETE", f"{draft}/domain/chat.example.com", {}),
        ("PUT", f"/enabled-products/v1/websockets/services/{service_id}", {}),
        ("DELETE", f"/enabled-products/v1/websockets/services/{service_id}", {}),
        ("PUT", f"/v1/services/{service_id}/limits", {"json": {}}),
        ("POST", f"/v1/services/{service_id}/versions/1/match", {"json": {"url": "ws://a.test"}}),
        (
            "POST",
            f"/v1/customers/{acme.customer_id}/users",
            {"json": {"login": "z", "role": "user"}},
        ),
        ("PUT", f"/user/{acme.user.user_id}", {"data": {"role": "superuser"}}),
        ("DELETE", f"/v1/users/{acme.user.user_id}", {}),
        ("POST", f"/v1/users/{acme.user.user_id}/tokens", {"json": {}}),
        ("DELETE", f"/tokens/{token_id}", {}),
    ]
    for method, path, given in writes:
        assert (await other.call(method, path, **given)).status_code == 404, (method, path)
    assert await other.ok("GET", "/service") == []
    assert (await other.get("/service/search", params={"name": "chat"})).status_code == 404
    hidden = await other.get("/v1/history", params={"customer_id": acme.customer_id})
    assert hidden.status_code == 404
    assert (await acme.user.get("/current_user")).status_code == 200


async def test_what_roles_may_write(system: ConfigSystem, acme: Tenant) -> None:
    service_id = await acme.engineer.complete()
    draft = f"/service/{service_id}/version/1"
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/service", {"data": {"name": "new"}}),
        ("PUT", f"/service/{service_id}", {"data": {"comment": "new"}}),
        ("POST", f"{draft}/director", {"data": {"name": "d"}}),
        ("PUT", f"{draft}/lock", {}),
        ("PUT", f"{draft}/activate", {}),
        ("PUT", f"/v1/services/{service_id}/limits", {"json": {}}),
    ]
    for person in (acme.user, acme.billing):
        for method, path, given in calls:
            answer = await person.call(method, path, **given)
            assert answer.status_code == 403, (method, path)
        for path in ("/service", f"{draft}/backend", f"/v1/services/{service_id}/history"):
            assert (await person.get(path)).status_code == 200, path


async def test_null_is_refused_where_it_means_nothing(system: ConfigSystem, acme: Tenant) -> None:
    customer = f"/v1/customers/{acme.customer_id}"
    [contract] = (await system.operator.ok("GET", f"{customer}/contracts"))["data"]
    contracts = f"{customer}/contracts/{contract['id']}"
    for path, fields in {
        customer: ("name", "account_type", "billing_email", "suspended"),
        f"/v1/users/{acme.user.user_id}": ("login", "name", "role"),
        contracts: ("starts_at",),
    }.items():
        for field in fields:
            answer = await system.operator.call("PATCH", path, json={field: None})
            assert answer.status_code == 422, (path, field)
            [error] = answer.json()["errors"]
            assert error["property"] == field and "null is not allowed" in error["reason"]
        same = await system.operator.ok("GET", path)
        assert await system.operator.ok("PATCH", path, json={}) == same
    opened = await system.operator.ok("PATCH", contracts, json={"ends_at": None})
    assert opened["ends_at"] is None


async def test_another_customer_is_not_to_be_seen_by_its_id(
    system: ConfigSystem, acme: Tenant
) -> None:
    other = await system.tenant("Other")
    for path in ("/v1/history", "/enabled-products/v1/websockets/services"):
        for customer_id, status in ((other.customer_id, 404), (acme.customer_id, 200)):
            for person in (acme.superuser, acme.user):
                answer = await person.get(path, params={"customer_id": customer_id})
                assert answer.status_code == status, (path, answer.text)
        answer = await system.operator.get(path, params={"customer_id": other.customer_id})
        assert answer.status_code == 200


async def test_history_says_who_what_when_and_from_where(
    system: ConfigSystem, acme: Tenant
) -> None:
    service_id = await acme.engineer.active()
    await acme.superuser.ok("PUT", f"/enabled-products/v1/websockets/services/{service_id}")
    page = await acme.user.ok("GET", f"/v1/services/{service_id}/history", params={"limit": 1})
    (entry,) = page["data"]
    assert entry["type"] == "product.enabled"
    assert (entry["before"]["enabled"], entry["after"]["enabled"]) == (False, True)
    assert entry["actor"]["login"] == "superuser@acme.example"
    assert entry["actor"]["user_id"] == acme.superuser.user_id
    assert (entry["ip"], entry["service_id"]) == ("127.0.0.1", service_id)
    assert len(entry["request_id"]) == 36
    rest = await acme.user.ok(
        "GET",
        f"/v1/services/{service_id}/history",
        params={"cursor": page["meta"]["next_cursor"]},
    )
    assert [e["type"] for e in rest["data"]] == [
        "version.activated",
        "backend.saved",
        "domain.saved",
        "version.created",
        "service.created",
    ]
    of_one_kind = await acme.user.ok(
        "GET", f"/v1/services/{service_id}/history", params={"object": "version"}
    )
    assert [e["type"] for e in of_one_kind["data"]] == ["version.activated", "version.created"]
    wrong = await acme.user.get(f"/v1/services/{service_id}/history", params={"object": "ver"})
    assert wrong.status_code == 422
    mine = (await acme.user.ok("GET", "/v1/history"))["data"]
    everything = (await acme.superuser.ok("GET", "/v1/history"))["data"]
    assert {e["object"] for e in mine} == {"service", "version", "domain", "backend", "product"}
    assert {e["object"] for e in everything} >= {"user", "token", "contract", "customer"}
    by_operator = [e for e in everything if e["actor"]["user_id"] is None]
    assert {e["ip"] for e in by_operator} == {""}
    all_of_it = (await system.operator.ok("GET", "/v1/history"))["data"]
    assert any(e["customer_id"] is None for e in all_of_it)


async def test_the_operator_token_survives_restarts_and_losses(tmp_path: Path) -> None:
    file = tmp_path / "operator-token"
    async with config_system(tmp_path, SystemClock()) as system:
        assert file.stat().st_mode & 0o777 == 0o600
        first = file.read_text().strip()
        assert len(first) == 32
        assert (await system.operator.get("/v1/customers")).status_code == 200
    async with config_system(tmp_path, SystemClock()) as system:
        assert file.read_text().strip() == first
    file.unlink()
    async with config_system(tmp_path, SystemClock()) as system:
        assert file.read_text().strip() != first
        assert (await system.operator.get("/v1/customers")).status_code == 200
        assert (await system.person(first).get("/v1/customers")).status_code == 200
    file.write_text("nonsense")
    async with config_system(tmp_path, SystemClock()) as system:
        assert (await system.operator.get("/v1/customers")).status_code == 200
        assert file.stat().st_mode & 0o777 == 0o600


async def test_operators_rotate_their_tokens(system: ConfigSystem) -> None:
    made = await system.operator.ok("POST", "/tokens", data={"name": "second"})
    second = system.person(made["access_token"])
    first = next(t for t in await second.ok("GET", "/tokens") if t["id"] != made["id"])
    assert (await second.delete(f"/tokens/{first['id']}")).status_code == 204
    assert (await system.operator.get("/v1/customers")).status_code == 401
    kept = await second.delete("/tokens/self")
    assert kept.status_code == 409
    assert (await second.ok("GET", "/current_user"))["role"] == "operator"
    assert (await second.get("/current_customer")).status_code == 404
