"""`POST /v1/services/{id}/versions/{n}/match` over HTTP: drafts too, for who may read."""

import json
from typing import Any

import pytest

from support.config_system import ConfigSystem, Person, Tenant

URL = "wss://chat.example.com/rooms/1?lang=en"


async def ruled(engineer: Person) -> str:
    """A service whose version 1 is a draft with two backends and two rules."""
    service_id = await engineer.complete(domain="Chat.example.com")
    draft = f"/service/{service_id}/version/1"
    await engineer.ok("POST", f"{draft}/backend", data={"name": "rooms", "address": "r.test"})
    rule: dict[str, Any] = {"name": "rooms", "backend": "rooms", "path_prefix": "/rooms/"}
    await engineer.ok(
        "POST", f"{draft}/websocket-rule", json={**rule, "header": {"name": "X-Team"}}
    )
    await engineer.ok(
        "POST",
        f"{draft}/websocket-rule",
        json={"name": "english", "backend": "origin", "query": {"name": "lang", "value": "en"}},
    )
    await engineer.ok(
        "PUT", f"{draft}/websocket-rule/english", json={"priority": 200, "subprotocol": "v2"}
    )
    return service_id


def path(service_id: str, version: int = 1) -> str:
    return f"/v1/services/{service_id}/versions/{version}/match"


async def test_a_draft_is_tried_by_who_may_read(acme: Tenant) -> None:
    service_id = await ruled(acme.engineer)
    body = {"url": URL, "headers": [["X-Team", "blue"]]}
    expected = {
        "service_id": service_id,
        "version": 1,
        "domain": {"name": "Chat.example.com", "claimed": True},
        "rule": "rooms",
        "backend": "rooms",
        "refusal": None,
        "tried": [{"rule": "rooms", "matched": True, "failed": None}],
    }
    for person in (acme.user, acme.billing, acme.engineer):
        assert await person.ok("POST", path(service_id), json=body) == expected
    object_form = {"url": URL, "headers": {"X-Team": "blue"}}
    assert await acme.user.ok("POST", path(service_id), json=object_form) == expected


async def test_the_next_rule_and_no_rule(acme: Tenant) -> None:
    service_id = await ruled(acme.engineer)
    second = await acme.user.ok(
        "POST", path(service_id), json={"url": URL, "subprotocols": ["v1", "v2"]}
    )
    assert (second["rule"], second["backend"]) == ("english", "origin")
    assert second["tried"] == [
        {"rule": "rooms", "matched": False, "failed": "header"},
        {"rule": "english", "matched": True, "failed": None},
    ]
    neither = await acme.user.ok("POST", path(service_id), json={"url": URL})
    assert (neither["rule"], neither["backend"]) == (None, None)
    assert neither["refusal"]["code"] == "no_rule"
    assert [trial["failed"] for trial in neither["tried"]] == ["header", "subprotocol"]


async def test_a_host_that_no_domain_takes(acme: Tenant) -> None:
    service_id = await acme.engineer.complete(domain="*.example.com")
    inside = await acme.user.ok("POST", path(service_id), json={"url": "ws://a.example.com"})
    assert inside["domain"] == {"name": "*.example.com", "claimed": True}
    assert (inside["rule"], inside["backend"], inside["tried"]) == (None, "origin", [])
    outside = await acme.user.ok("POST", path(service_id), json={"url": "ws://a.b.example.com"})
    assert outside["domain"] == {"name": None, "claimed": False}
    assert outside["refusal"]["code"] == "unknown_domain"
    assert "'a.b.example.com'" in outside["refusal"]["text"]


async def test_nothing_is_changed_or_charged(system: ConfigSystem, acme: Tenant) -> None:
    service_id = await acme.engineer.active()
    await acme.engineer.ok("PUT", f"/service/{service_id}/version/1/clone")
    reader = await acme.user.ok(
        "POST", f"/v1/users/{acme.user.user_id}/tokens", json={"scope": "global:read"}
    )
    before = await acme.engineer.ok("GET", f"/v1/services/{service_id}/history")
    for version in (1, 2):
        answer = await system.person(reader["access_token"]).post(
            path(service_id, version), json={"url": URL}
        )
        assert (answer.status_code, answer.json()["version"]) == (200, version)
        assert "fastly-ratelimit-remaining" not in answer.headers
    assert await acme.engineer.ok("GET", f"/v1/services/{service_id}/history") == before


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"url"}),
        ({"url": URL, "method": "GET"}, {"method"}),
        ({"url": "https://chat.example.com/"}, {"url"}),
        ({"url": "wss:///rooms"}, {"url"}),
        ({"url": "wss://chat.example.com/" + "a" * 20_000}, {"url"}),
        ({"url": URL, "headers": [["X", "a" * 17_000]]}, {"headers"}),
        ({"url": URL, "headers": {f"x-{n}": "" for n in range(1_001)}}, {"headers"}),
        ({"url": URL, "headers": None}, {"headers"}),
        ({"url": URL, "headers": [["X"]]}, {"headers.0.1"}),
        ({"url": URL, "headers": {"X": 1}}, {"headers.0.1"}),
        (
            {"url": URL, "headers": [["Host", "a"], ["a b", "\n"]]},
            {"headers.0.0", "headers.1.0", "headers.1.1"},
        ),
        ({"url": "ws://a\ud800", "subprotocols": ["a b"]}, {"url"}),
        ({"url": URL, "subprotocols": ["a b"]}, {"subprotocols.0"}),
    ],
)
async def test_a_wrong_body_is_refused_by_field(
    acme: Tenant, body: dict[str, Any], wrong: set[str]
) -> None:
    service_id = await acme.engineer.complete()
    # `content`: the client itself would refuse half a surrogate pair.
    answer = await acme.user.post(
        path(service_id), content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert {error["property"] for error in answer.json()["errors"]} == wrong


async def test_what_is_not_there_is_not_found(system: ConfigSystem, acme: Tenant) -> None:
    service_id = await acme.engineer.complete()
    other = await system.tenant("Other")
    body = {"url": URL}
    assert (await acme.user.post(path(service_id, 2), json=body)).status_code == 404
    assert (await acme.user.post(path("gone"), json=body)).status_code == 404
    assert (await other.superuser.post(path(service_id), json=body)).status_code == 404
    assert (await system.person("").post(path(service_id), json=body)).status_code == 401
