"""Enabling and disabling WebSockets: who may, what stops it, and how it is told."""

from typing import Any

import pytest

from handoff_common.events import CustomerSnapshot, ServiceSnapshot
from support.config_system import ConfigSystem, Person, Tenant

SHAPE = "/enabled-products/v1/websockets/services"


async def test_on_and_off_with_the_recorded_shapes(system: ConfigSystem, acme: Tenant) -> None:
    engineer = acme.engineer
    service_id = await engineer.active()
    path = f"{SHAPE}/{service_id}"
    off = await engineer.get(path)
    assert (off.status_code, off.json()["title"]) == (400, "no product on service")
    assert off.headers["content-type"] == "application/problem+json"
    on = await engineer.put(path, headers={"content-type": "application/json"})
    assert on.status_code == 200
    assert on.json() == {
        "product": {"id": "websockets", "object": "product"},
        "service": {"id": service_id, "object": "service"},
        "_links": {"self": path},
    }
    told = (await system.told("handoff.services.v1", service_id))[-1]
    assert isinstance(told, ServiceSnapshot)
    assert told.data.websockets_enabled
    assert (await engineer.put(path)).json() == on.json()
    assert (await engineer.get(path)).json() == on.json()
    older = f"/enabled-products/websockets/services/{service_id}"
    assert (await acme.user.get(older)).status_code == 200
    assert await acme.user.ok("GET", SHAPE) == {
        "product": {"id": "websockets", "object": "product"},
        "customer": {"id": acme.customer_id, "object": "customer"},
        "services": [service_id],
        "_links": {"self": SHAPE},
    }
    for _ in range(2):
        gone = await engineer.delete(path, params={"keep_open": "true"})
        assert (gone.status_code, gone.content) == (204, b"")
    told = (await system.told("handoff.services.v1", service_id))[-1]
    assert isinstance(told, ServiceSnapshot)
    assert (told.data.websockets_enabled, told.data.keep_open) == (False, True)
    assert (await acme.user.ok("GET", SHAPE))["services"] == []


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("superuser", True),
        ("engineer", True),
        ("operator", True),
        ("billing", False),
        ("user", False),
    ],
)
async def test_who_may_toggle(system: ConfigSystem, acme: Tenant, role: str, may: bool) -> None:
    service_id = await acme.engineer.active()
    person: Person = system.operator if role == "operator" else getattr(acme, role)
    path = f"{SHAPE}/{service_id}"
    check = await person.ok("GET", f"/v1/services/{service_id}/websockets/check")
    assert check["may_toggle"] is may
    on, off = await person.put(path), await person.delete(path)
    assert (on.status_code, off.status_code) == ((200, 204) if may else (403, 403))
    if not may:
        assert f"role '{role}'" in on.json()["detail"]
        assert "superuser, engineer" in on.json()["detail"]
        assert (await acme.engineer.get(path)).status_code == 400


async def wrong_in_every_way(engineer: Person) -> str:
    service_id = await engineer.complete(shield="lga-ny-us", max_conn="201")
    draft = f"/service/{service_id}/version/1"
    await engineer.ok("POST", f"{draft}/director", data={"name": "pool"})
    await engineer.ok("POST", f"{draft}/director/pool/backend/origin")
    await engineer.ok("PUT", f"{draft}/activate")
    await engineer.ok("PUT", f"/enabled-products/v1/ngwaf/services/{service_id}", json={})
    return service_id


async def test_the_dry_run_and_the_refusal_list_everything_by_name(acme: Tenant) -> None:
    service_id = await wrong_in_every_way(acme.engineer)
    check = await acme.user.ok("GET", f"/v1/services/{service_id}/websockets/check")
    assert (check["entitled"], check["enabled"], check["compatible"]) == (True, False, False)
    assert check["contact"] is None
    found = {(v["object"], v["name"], v["field"]): v for v in check["violations"]}
    assert set(found) == {
        ("product", "ngwaf", "enabled"),
        ("director", "pool", "name"),
        ("backend", "origin", "shield"),
        ("backend", "origin", "max_conn"),
    }
    conn = found["backend", "origin", "max_conn"]
    assert conn["value"] == 201
    assert conn["allowed"] == "200 (the default)"
    refused = await acme.engineer.put(f"{SHAPE}/{service_id}")
    assert refused.status_code == 400
    problem = refused.json()
    assert problem["title"] == "service is not compatible with websockets"
    assert {e["property"] for e in problem["errors"]} == {
        "product.ngwaf.enabled",
        "director.pool.name",
        "backend.origin.shield",
        "backend.origin.max_conn",
    }
    assert problem["request_id"] == refused.headers["x-request-id"]
    assert (await acme.engineer.get(f"{SHAPE}/{service_id}")).status_code == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_conn", "201"), ("shield", "lga-ny-us"), ("ssl_sni_hostname", "else.example.com")],
)
async def test_each_alone_stops_enabling(acme: Tenant, field: str, value: str) -> None:
    service_id = await acme.engineer.active(**{field: value})
    refused = await acme.engineer.put(f"{SHAPE}/{service_id}")
    assert refused.status_code == 400
    assert [e["property"] for e in refused.json()["errors"]] == [f"backend.origin.{field}"]
    assert value in refused.json()["detail"]


async def test_a_director_alone_stops_enabling(acme: Tenant) -> None:
    service_id = await acme.engineer.complete()
    draft = f"/service/{service_id}/version/1"
    await acme.engineer.ok("POST", f"{draft}/director", data={"name": "pool"})
    await acme.engineer.ok("PUT", f"{draft}/activate")
    await only_refused_for(acme, service_id, "director.pool.name")
    await acme.engineer.ok("PUT", f"{draft}/clone")
    await acme.engineer.ok("DELETE", f"/service/{service_id}/version/2/director/pool")
    await acme.engineer.ok("PUT", f"/service/{service_id}/version/2/activate")
    await acme.engineer.ok("PUT", f"{SHAPE}/{service_id}")


async def test_the_waf_alone_stops_enabling(acme: Tenant) -> None:
    service_id = await acme.engineer.active()
    ngwaf = f"/enabled-products/v1/ngwaf/services/{service_id}"
    await acme.engineer.ok("PUT", ngwaf, json={})
    await only_refused_for(acme, service_id, "product.ngwaf.enabled")
    await acme.engineer.ok("DELETE", ngwaf)
    await acme.engineer.ok("PUT", f"{SHAPE}/{service_id}")


async def only_refused_for(acme: Tenant, service_id: str, place: str) -> None:
    refused = await acme.engineer.put(f"{SHAPE}/{service_id}")
    assert refused.status_code == 400
    assert [e["property"] for e in refused.json()["errors"]] == [place]
    check = await acme.user.ok("GET", f"/v1/services/{service_id}/websockets/check")
    assert [v["object"] for v in check["violations"]] == [place.partition(".")[0]]
    assert check["enabled"] is False


async def test_an_enabled_service_cannot_activate_what_does_not_go_together(acme: Tenant) -> None:
    engineer = acme.engineer
    service_id = await engineer.active()
    await engineer.ok("PUT", f"{SHAPE}/{service_id}")
    base = f"/service/{service_id}/version"
    await engineer.ok("PUT", f"{base}/1/clone")
    warned = await engineer.post(f"{base}/2/director", data={"name": "poöl"})
    assert warned.status_code == 200
    assert "director" in warned.headers["x-handoff-warning"]
    warned = await engineer.put(f"{base}/2/backend/origin", data={"max_conn": "201"})
    assert "max_conn is 201" in warned.headers["x-handoff-warning"]
    verdict = await engineer.ok("GET", f"{base}/2/validate")
    assert (verdict["status"], len(verdict["warnings"])) == ("ok", 2)
    refused = await engineer.put(f"{base}/2/activate")
    assert refused.status_code == 422
    assert "'poöl'" in refused.json()["detail"]
    assert "max_conn" in refused.json()["detail"]
    check = await engineer.ok(
        "GET", f"/v1/services/{service_id}/websockets/check", params={"version": 2}
    )
    assert (check["version"], len(check["violations"])) == (2, 2)
    await engineer.ok("DELETE", f"{base}/2/director/po%C3%B6l")
    fixed = await engineer.put(f"{base}/2/backend/origin", data={"max_conn": "None"})
    assert "x-handoff-warning" not in fixed.headers
    await engineer.ok("PUT", f"{base}/2/activate")


async def test_ngwaf_and_websockets_exclude_each_other(acme: Tenant) -> None:
    service_id = await acme.engineer.active()
    ngwaf = f"/enabled-products/v1/ngwaf/services/{service_id}"
    await acme.engineer.ok("PUT", f"{SHAPE}/{service_id}")
    refused = await acme.engineer.put(ngwaf)
    assert refused.status_code == 400
    assert "not compatible" in refused.json()["title"]
    await acme.engineer.ok("DELETE", f"{SHAPE}/{service_id}")
    await acme.engineer.ok("PUT", ngwaf, json={"workspace_id": "w"})
    assert (await acme.engineer.put(f"{SHAPE}/{service_id}")).status_code == 400
    await acme.engineer.ok("DELETE", ngwaf)
    await acme.engineer.ok("PUT", f"{SHAPE}/{service_id}")


@pytest.mark.parametrize("lacking", ["trial", "no contract", "ended", "later", "suspended"])
async def test_without_entitlement_the_contact_is_named(system: ConfigSystem, lacking: str) -> None:
    tenant = await system.tenant(
        account_type="trial" if lacking == "trial" else "paid",
        contract=lacking in ("trial", "suspended"),
    )
    operator, customer = system.operator, f"/v1/customers/{tenant.customer_id}"
    periods: dict[str, dict[str, Any]] = {
        "ended": {"starts_at": "2020-01-01T00:00:00Z", "ends_at": "2021-01-01T00:00:00Z"},
        "later": {"starts_at": "2199-01-01T00:00:00Z", "ends_at": None},
    }
    if period := periods.get(lacking):
        await operator.ok("POST", f"{customer}/contracts", json={"product": "websockets", **period})
    if lacking == "suspended":
        await operator.ok("PATCH", customer, json={"suspended": True})
    service_id = await tenant.engineer.active()
    check = await tenant.user.ok("GET", f"/v1/services/{service_id}/websockets/check")
    assert check["entitled"] is False
    refused = await tenant.engineer.put(f"{SHAPE}/{service_id}")
    assert refused.status_code == 400
    assert "not entitled to enable" in refused.json()["title"]
    assert "sales@handoff.example" in refused.json()["detail"]
    assert check["entitlement"] in refused.json()["detail"]
    assert check["contact"] == "sales@handoff.example"


async def test_ending_a_contract_is_told_at_once(system: ConfigSystem, acme: Tenant) -> None:
    path = f"/v1/customers/{acme.customer_id}/contracts"
    listed = await acme.user.ok("GET", path)
    contract_id = listed["data"][0]["id"]
    await system.operator.ok(
        "PATCH", f"{path}/{contract_id}", json={"ends_at": "2021-01-01T00:00:00Z"}
    )
    told = (await system.told("handoff.customers.v1", acme.customer_id))[-1]
    assert isinstance(told, CustomerSnapshot)
    assert told.data.contracts[0].ends_at is not None
    service_id = await acme.engineer.active()
    assert (await acme.engineer.put(f"{SHAPE}/{service_id}")).status_code == 400


async def test_limits_are_set_as_a_whole(system: ConfigSystem, acme: Tenant) -> None:
    service_id = await acme.engineer.service()
    path = f"/v1/services/{service_id}/limits"
    before = await acme.user.get(path)
    assert before.json()["idle_timeout_ms"] == 600_000
    assert before.json()["max_connections"] is None
    put = await acme.engineer.put(
        path, json={"max_connections": 10}, headers={"if-match": before.headers["etag"]}
    )
    assert put.status_code == 200
    stale = await acme.engineer.put(
        path, json={"max_connections": 11}, headers={"if-match": before.headers["etag"]}
    )
    assert stale.status_code == 412
    assert (await acme.user.get(path)).headers["etag"] == put.headers["etag"]
    told = (await system.told("handoff.services.v1", service_id))[-1]
    assert isinstance(told, ServiceSnapshot)
    assert told.data.limits.max_connections == 10
    assert (await acme.user.put(path, json={})).status_code == 403
    wrong = await acme.engineer.put(path, json={"max_connections": -1, "idle_timeout_ms": 5})
    assert {e["property"] for e in wrong.json()["errors"]} == {"max_connections", "idle_timeout_ms"}
    unknown = await acme.engineer.put(path, json={"max_conections": 1})
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["property"] == "max_conections"
