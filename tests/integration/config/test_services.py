"""Services, versions, domains, backends, directors and rules, over HTTP."""

from datetime import datetime
from typing import Any

import pytest

from handoff_common.events import ServiceSnapshot
from support.config_system import ConfigSystem, Tenant


async def test_from_nothing_to_an_active_service(system: ConfigSystem, acme: Tenant) -> None:
    engineer = acme.engineer
    created = await engineer.post("/service", data={"name": "chat", "comment": "rooms"})
    assert created.status_code == 200
    service = created.json()
    assert len(service["id"]) == 22
    assert service["customer_id"] == acme.customer_id
    assert [v["number"] for v in service["versions"]] == [1]
    assert datetime.fromisoformat(service["created_at"]).tzinfo is not None
    draft = f"/service/{service['id']}/version/1"

    domain = await engineer.ok("POST", f"{draft}/domain", json={"name": "Chat.example.com"})
    assert (domain["name"], domain["version"]) == ("Chat.example.com", 1)
    backend = await engineer.ok(
        "POST",
        f"{draft}/backend",
        data={"name": "origin", "address": "192.0.2.7", "port": "443", "shield": "None"},
    )
    assert (backend["port"], backend["use_ssl"], backend["ipv4"]) == (443, True, "192.0.2.7")
    rule = await engineer.ok(
        "POST",
        f"{draft}/websocket-rule",
        json={"name": "rooms", "path_prefix": "/r/", "backend": "origin", "header": {"name": "X"}},
    )
    assert (rule["priority"], rule["header_name"], rule["header_value"]) == (100, "X", None)
    assert await engineer.ok("GET", f"{draft}/validate") == {
        "status": "ok",
        "msg": None,
        "errors": [],
        "warnings": [],
    }
    version = await engineer.ok("PUT", f"{draft}/activate")
    assert (version["number"], version["active"], version["locked"]) == (1, True, True)

    # The call has waited: the log knows it now.
    told = (await system.told("handoff.services.v1", service["id"]))[-1]
    assert isinstance(told, ServiceSnapshot)
    assert told.data.domains == ("chat.example.com",)
    assert told.data.backends[0].address == "192.0.2.7"
    assert told.data.rules[0].name == "rooms"
    assert told.data.active_version == 1
    details = await engineer.ok("GET", f"/service/{service['id']}/details")
    assert details["active_version"]["websocket_rules"][0]["name"] == "rooms"
    assert details["version"]["number"] == 1
    assert await engineer.ok("GET", f"/service/{service['id']}/domain") == [domain]


async def test_types_are_what_clients_take(acme: Tenant) -> None:
    service_id = await acme.engineer.complete(max_conn="201", use_ssl="True", ssl_check_cert="0")
    backend = await acme.engineer.ok("GET", f"/service/{service_id}/version/1/backend/origin")
    for field in ("port", "max_conn", "weight", "connect_timeout", "fetch_timeout", "version"):
        assert type(backend[field]) is int, field
    for field in ("use_ssl", "auto_loadbalance", "prefer_ipv6", "locked", "ssl_check_cert"):
        assert type(backend[field]) is bool, field
    assert backend["use_ssl"] is True
    assert backend["ssl_check_cert"] is False
    assert backend["request_condition"] == ""
    assert backend["shield"] is None
    assert backend["deleted_at"] is None


@pytest.mark.parametrize("form", [True, False])
async def test_what_is_read_can_be_written_back(acme: Tenant, form: bool) -> None:
    service_id = await acme.engineer.complete(max_conn="201", comment="blue")
    path = f"/service/{service_id}/version/1/backend/origin"
    read = await acme.engineer.ok("GET", path)
    changed = {**read, "weight": 7}
    # As the published client writes a form: null is the text None.
    sent: dict[str, Any] = (
        {"data": {k: str(v) for k, v in changed.items()}} if form else {"json": changed}
    )
    answer = await acme.engineer.put(path, **sent)
    assert answer.status_code == 200
    ignored = answer.headers["x-handoff-ignored"].split(", ")
    assert set(ignored) >= {"created_at", "service_id", "version", "locked", "updated_at"}
    written = answer.json()
    assert {k: v for k, v in written.items() if k != "updated_at"} == {
        k: v for k, v in changed.items() if k != "updated_at"
    }


@pytest.mark.parametrize(
    ("kind", "values", "change"),
    [
        ("domain", {"name": "a.example"}, {"comment": "new"}),
        ("backend", {"name": "a", "address": "192.0.2.1"}, {"comment": "new"}),
        ("director", {"name": "a", "quorum": 0}, {"comment": "new"}),
        ("websocket-rule", {"name": "a", "backend": "b"}, {"comment": "new"}),
    ],
)
async def test_each_part_is_made_read_changed_and_deleted(
    acme: Tenant, kind: str, values: dict[str, Any], change: dict[str, str]
) -> None:
    engineer = acme.engineer
    path = f"/service/{await engineer.service()}/version/1/{kind}"
    made = await engineer.ok("POST", path, data=values)
    for key, value in values.items():
        assert made[key] == value
    assert await engineer.ok("GET", path) == [made]
    one = f"{path}/{values['name']}"
    assert await engineer.ok("GET", one) == made
    assert (await engineer.ok("PUT", one, data=change))["comment"] == "new"
    again = await engineer.post(path, data=values)
    assert again.status_code == 409
    assert again.json()["msg"] == "Duplicate record"
    renamed = "b.example" if kind == "domain" else "renamed"
    await engineer.ok("PUT", one, data={"name": renamed})
    assert (await engineer.get(one)).status_code == 404
    assert await engineer.ok("DELETE", f"{path}/{renamed}") == {"status": "ok"}
    missing = await engineer.delete(f"{path}/{renamed}")
    assert missing.status_code == 404
    assert set(missing.json()) == {"msg", "detail"}


async def test_links_between_directors_and_backends(acme: Tenant) -> None:
    engineer = acme.engineer
    service_id = await engineer.complete()
    draft = f"/service/{service_id}/version/1"
    await engineer.ok("POST", f"{draft}/director", data={"name": "pool"})
    link = f"{draft}/director/pool/backend/origin"
    assert (await engineer.get(link)).status_code == 404
    made = await engineer.ok("POST", link, headers={"content-type": "application/json"})
    assert (made["director"], made["backend_name"]) == ("pool", "origin")
    assert await engineer.ok("GET", link) == made
    pool = await engineer.ok("GET", f"{draft}/director/pool")
    assert [b["name"] for b in pool["backends"]] == ["origin"]
    assert await engineer.ok("DELETE", link) == {"status": "ok"}
    assert (await engineer.delete(link)).status_code == 404
    assert (await engineer.post(f"{draft}/director/pool/backend/no")).status_code == 404


async def test_versions_are_cloned_locked_and_moved_between(acme: Tenant) -> None:
    engineer = acme.engineer
    service_id = await engineer.active()
    base = f"/service/{service_id}/version"
    for answer in (
        await engineer.post(f"{base}/1/backend", data={"name": "b", "address": "b.example"}),
        await engineer.put(f"{base}/1", data={"comment": "x"}),
        await engineer.delete(f"{base}/1/domain/chat.example.com"),
    ):
        assert answer.status_code == 422
        assert answer.json()["msg"] == "Version locked"
    clone = await engineer.ok(
        "PUT", f"{base}/1/clone", headers={"content-type": "application/json"}
    )
    assert (clone["number"], clone["active"], clone["locked"]) == (2, False, False)
    assert len(await engineer.ok("GET", f"{base}/2/backend")) == 1
    assert (await engineer.ok("PUT", f"{base}/2", data={"comment": "x"}))["comment"] == "x"
    assert (await engineer.ok("POST", base))["number"] == 3
    assert await engineer.ok("GET", f"{base}/3/backend") == []
    await engineer.ok("PUT", f"{base}/2/activate")
    assert [(v["number"], v["active"]) for v in await engineer.ok("GET", base)] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    listed = (await engineer.ok("GET", "/service"))[0]
    assert listed["version"] == 2
    assert (await engineer.put(f"{base}/1/deactivate")).status_code == 422
    await engineer.ok("PUT", f"{base}/1/activate")
    await engineer.ok("PUT", f"{base}/1/deactivate")
    assert (await engineer.ok("PUT", f"{base}/3/lock"))["locked"] is True
    assert (await engineer.get(f"{base}/9")).status_code == 404
    assert (await engineer.get(f"{base}/one")).status_code == 422


async def test_an_incomplete_version_says_what_it_needs(acme: Tenant) -> None:
    engineer = acme.engineer
    service_id = await engineer.service("empty")
    verdict = await engineer.ok("GET", f"/service/{service_id}/version/1/validate")
    assert verdict["status"] == "error"
    refused = await engineer.put(f"/service/{service_id}/version/1/activate")
    assert refused.status_code == 422
    for said in (verdict["msg"], refused.json()["detail"]):
        assert "'empty' version 1 has no domain" in said
        assert "no backend" in said


async def test_a_domain_is_active_in_one_service_only(system: ConfigSystem, acme: Tenant) -> None:
    first = await acme.engineer.active("one", domain="Shared.example.com")
    second = await acme.engineer.complete("two", domain="shared.example.com")
    verdict = await acme.engineer.ok("GET", f"/service/{second}/version/1/validate")
    assert verdict["status"] == "error"
    refused = await acme.engineer.put(f"/service/{second}/version/1/activate")
    assert refused.status_code == 409
    assert "'shared.example.com'" in refused.json()["detail"]
    assert first in refused.json()["detail"]

    other = await system.tenant("Other")
    third = await other.engineer.complete("three", domain="shared.example.com")
    refused = await other.engineer.put(f"/service/{third}/version/1/activate")
    assert refused.status_code == 409
    assert first not in refused.text

    await acme.engineer.ok("PUT", f"/service/{first}/version/1/deactivate")
    await other.engineer.ok("PUT", f"/service/{third}/version/1/activate")
    assert (await acme.engineer.put(f"/service/{first}/version/1/activate")).status_code == 409


async def test_no_part_of_another_customers_wildcard_can_be_taken(
    system: ConfigSystem, acme: Tenant
) -> None:
    await acme.engineer.active("wild", domain="*.acme.example")
    await acme.engineer.active("exact", domain="own.acme.example")
    other = await system.tenant("Other")
    await other.engineer.active("mine", domain="secret.other.example")
    stolen = await other.engineer.complete("thief", domain="pay.acme.example")
    refused = await other.engineer.put(f"/service/{stolen}/version/1/activate")
    assert refused.status_code == 409
    over = await acme.engineer.complete("over", domain="*.other.example")
    refused = await acme.engineer.put(f"/service/{over}/version/1/activate")
    assert refused.status_code == 409
    assert "'*.other.example'" in refused.text
    assert "secret" not in refused.text


async def test_services_are_found_listed_in_pages_and_deleted(acme: Tenant) -> None:
    engineer = acme.engineer
    made = [await engineer.service(name) for name in ("a", "b", "c")]
    page = await engineer.get("/service", params={"page": 2, "per_page": 2})
    assert [s["id"] for s in page.json()] == made[2:]
    assert 'rel="prev"' in page.headers["link"]
    assert 'rel="next"' not in page.headers["link"]
    assert (await engineer.ok("GET", "/service/search", params={"name": "b"}))["id"] == made[1]
    assert (await engineer.get("/service/search", params={"name": "z"})).status_code == 404
    assert (await engineer.post("/service", data={"name": "a"})).status_code == 409
    assert (await engineer.put(f"/service/{made[1]}", data={"name": "a"})).status_code == 409
    renamed = await engineer.ok("PUT", f"/service/{made[1]}", data={"name": "B", "comment": "x"})
    assert (renamed["name"], renamed["comment"]) == ("B", "x")
    assert await engineer.ok("DELETE", f"/service/{made[0]}") == {"status": "ok"}
    assert (await engineer.get(f"/service/{made[0]}")).status_code == 404
    assert await engineer.service("a") not in made


async def test_an_operator_lists_one_customers_services(system: ConfigSystem, acme: Tenant) -> None:
    other = await system.tenant("Other")
    made = [await acme.engineer.service(name) for name in ("a", "b")]
    await other.engineer.service("c")
    whose = {"customer_id": acme.customer_id, "per_page": 1}
    page = await system.operator.get("/service", params=whose)
    assert [one["id"] for one in page.json()] == made[:1]
    assert f"customer_id={acme.customer_id}&page=2" in page.headers["link"]
    page = await system.operator.get("/service", params={**whose, "page": 2})
    assert [one["id"] for one in page.json()] == made[1:] and "next" not in page.headers["link"]
    assert len(await system.operator.ok("GET", "/service")) == 3
    assert len(await acme.user.ok("GET", "/service", params=whose)) == 1
    assert (await other.user.get("/service", params=whose)).status_code == 404


async def test_an_active_service_is_not_deleted(acme: Tenant) -> None:
    service_id = await acme.engineer.active()
    refused = await acme.engineer.delete(f"/service/{service_id}")
    assert refused.status_code == 422
    assert "deactivate it first" in refused.json()["detail"]


FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
BAD_BODIES: list[tuple[dict[str, Any], int, str]] = [
    ({"data": {"name": "b"}}, 422, "address: is missing"),
    ({"data": {"name": "b", "address": "x y"}}, 422, "address: is 'x y'"),
    ({"data": {"name": "b", "address": "x", "port": "eighty"}}, 422, "port"),
    ({"data": {"name": "b", "address": "x", "use_ssl": "perhaps"}}, 422, "use_ssl"),
    ({"content": "{", "headers": JSON}, 400, "not JSON"),
    ({"json": ["a"]}, 400, "must be a JSON object"),
    ({"json": {"name": {"a": 1}, "address": "x"}}, 422, "name"),
    (
        {
            "content": rb'{"name": "\ud800", "address": "x"}',
            "headers": JSON,
        },
        422,
        "name",
    ),
    ({"json": {"name": "b", "address": "x", "max_conn": 10**30}}, 422, "max_conn"),
    ({"content": b"x=" + b"y" * 1_100_000, "headers": FORM}, 413, "1048576"),
]


async def test_bad_bodies_are_refused_by_field(acme: Tenant) -> None:
    service_id = await acme.engineer.service()
    for sent, status, says in BAD_BODIES:
        answer = await acme.engineer.post(f"/service/{service_id}/version/1/backend", **sent)
        assert answer.status_code == status, answer.text
        assert set(answer.json()) == {"msg", "detail"}
        assert says in answer.json()["detail"]


async def test_unknown_fields_with_any_name_are_ignored_and_named(acme: Tenant) -> None:
    answer = await acme.engineer.post("/service", json={"name": "a", "日本\r\nx: y": 1, "id": "z"})
    assert answer.status_code == 200
    assert "id" in answer.headers["x-handoff-ignored"]
    assert "x" not in answer.headers


async def test_odd_ids_are_not_found(acme: Tenant) -> None:
    for path in ("/service/%00", "/tokens/%00", "/user/%00", "/v1/users/%00"):
        assert (await acme.engineer.get(path)).status_code == 404


async def test_keys_of_backends_are_for_those_who_write_them(acme: Tenant) -> None:
    service_id = await acme.engineer.complete(ssl_client_key="KEY")
    path = f"/service/{service_id}/version/1/backend/origin"
    assert (await acme.engineer.ok("GET", path))["ssl_client_key"] == "KEY"
    assert (await acme.user.ok("GET", path))["ssl_client_key"] is None
    details = await acme.user.get(f"/service/{service_id}/details")
    history = await acme.superuser.get(f"/v1/services/{service_id}/history")
    assert "KEY" not in details.text + history.text


async def test_an_operator_says_whose_service_it_is(system: ConfigSystem, acme: Tenant) -> None:
    operator = system.operator
    assert (await operator.post("/service", data={"name": "a"})).status_code == 422
    missing = await operator.post("/service", data={"name": "a", "customer_id": "nobody"})
    assert missing.status_code == 404
    made = await operator.ok(
        "POST", "/service", data={"name": "a", "customer_id": acme.customer_id}
    )
    assert made["customer_id"] == acme.customer_id
    assert await acme.user.ok("GET", f"/service/{made['id']}")
    foreign = await acme.engineer.post("/service", data={"name": "b", "customer_id": "other"})
    assert foreign.json()["customer_id"] == acme.customer_id
    assert foreign.headers["x-handoff-ignored"] == "customer_id"
