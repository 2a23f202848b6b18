"""Idempotency, concurrency, the rate limit, and what is told when."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete, insert, select, update

from handoff_common.clock import ManualClock, SystemClock
from handoff_common.errors import ApiError
from handoff_config import service_commands, tables
from handoff_config.store import Actor
from handoff_config.streams import SERVICE
from support.config_system import ConfigSystem, Person, Tenant, config_system

SOMEBODY = Actor(None, None, "somebody")


async def test_a_repeated_request_is_answered_the_same_and_done_once(acme: Tenant) -> None:
    engineer = acme.engineer
    key = {"Idempotency-Key": "one"}
    first = await engineer.post("/service", data={"name": "chat"}, headers=key)
    again = await engineer.post("/service", data={"name": "chat"}, headers=key)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(await engineer.ok("GET", "/service")) == 1
    other = await engineer.post("/service", data={"name": "other"}, headers=key)
    assert other.status_code == 422
    assert "another path or body" in other.json()["detail"]
    draft = f"/service/{first.json()['id']}/version"
    versions = [await engineer.ok("POST", draft, headers={"Idempotency-Key": "v"}) for _ in "ab"]
    assert versions[0] == versions[1]
    # Another token's keys are its own.
    assert (
        await acme.superuser.post("/service", data={"name": "other"}, headers=key)
    ).status_code == 200
    too_long = await engineer.post("/service", data={}, headers={"Idempotency-Key": "k" * 256})
    assert too_long.status_code == 400


async def test_a_refused_request_may_be_repeated_with_its_key(acme: Tenant) -> None:
    key = {"Idempotency-Key": "one"}
    assert (await acme.engineer.post("/service", data={}, headers=key)).status_code == 422
    assert (await acme.engineer.post("/service", data={"name": "a"}, headers=key)).is_success


async def test_a_repeated_token_is_not_shown_again(acme: Tenant) -> None:
    key = {"Idempotency-Key": "one"}
    first = await acme.user.ok("POST", "/tokens", data={}, headers=key)
    again = await acme.user.ok("POST", "/tokens", data={}, headers=key)
    assert again == {k: v for k, v in first.items() if k != "access_token"}


async def test_the_same_request_twice_at_once_is_done_once(acme: Tenant) -> None:
    key = {"Idempotency-Key": "one"}
    answers = await asyncio.gather(
        *(acme.engineer.post("/service", data={"name": "chat"}, headers=key) for _ in range(8))
    )
    assert {a.status_code for a in answers} == {200}
    assert len({a.json()["id"] for a in answers}) == 1


async def test_keys_are_forgotten_after_a_day(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 1, tzinfo=UTC))
    async with config_system(tmp_path, clock) as system:
        tenant = await system.tenant()
        key = {"Idempotency-Key": "one"}
        await tenant.engineer.ok("POST", "/service", data={"name": "a"}, headers=key)
        clock.advance(seconds=86_401)
        await tenant.engineer.ok("POST", "/service", data={"name": "b"}, headers=key)


async def test_many_writers_of_one_draft_all_get_through(acme: Tenant) -> None:
    service_id = await acme.engineer.service()
    path = f"/service/{service_id}/version/1/domain"
    answers = await asyncio.gather(
        *(acme.engineer.post(path, data={"name": f"d{n}.example"}) for n in range(20))
    )
    assert {a.status_code for a in answers} == {200}
    assert len(await acme.engineer.ok("GET", path)) == 20


async def test_one_of_many_gets_a_name(acme: Tenant) -> None:
    answers = await asyncio.gather(
        *(acme.engineer.post("/service", data={"name": "chat"}) for _ in range(8))
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 7


async def test_one_of_many_gets_a_domain(acme: Tenant) -> None:
    services = [await acme.engineer.complete(f"s{n}", domain="x.example") for n in range(5)]
    answers = await asyncio.gather(
        *(acme.engineer.put(f"/service/{s}/version/1/activate") for s in services)
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 4


async def test_a_writer_that_always_comes_second_gives_up(
    system: ConfigSystem, acme: Tenant
) -> None:
    service_id = await acme.engineer.service()
    stream = f"service/{service_id}"
    async with system.db.transaction() as tx:
        # As after another writer's events that this one's reading of the state has missed.
        row = (
            await tx.execute(select(tables.events).where(tables.events.c.stream == stream))
        ).first()
        assert row is not None
        taken = {**row._asdict(), "stream_version": 3}
        del taken["revision"]
        await tx.execute(insert(tables.events).values(taken))
    with pytest.raises(ApiError) as caught:
        await system.store.change(
            SERVICE,
            service_id,
            lambda s: service_commands.create_version(service_commands.live(s, service_id), {}),
            actor=SOMEBODY,
        )
    assert (caught.value.status, caught.value.code) == (409, "concurrent_change")
    assert len(await acme.engineer.ok("GET", f"/service/{service_id}/version")) == 1
    async with system.db.transaction() as tx:
        extra = (tables.events.c.stream == stream) & (tables.events.c.stream_version == 3)
        await tx.execute(delete(tables.events).where(extra))


async def test_a_state_that_is_not_its_fold_is_found(tmp_path: Path) -> None:
    async with config_system(tmp_path, SystemClock()) as system:
        tenant = await system.tenant()
        service_id = await tenant.engineer.service()
        assert await system.store.differences() == []
        stream = f"service/{service_id}"
        async with system.db.transaction() as tx:
            other = await tx.scalar(
                select(tables.streams.c.state).where(tables.streams.c.stream == stream)
            )
            assert other is not None
            await tx.execute(
                update(tables.streams)
                .where(tables.streams.c.stream == stream)
                .values(state=other.replace("chat", "shat"))
            )
        assert await system.store.differences() == [stream]


async def test_writes_are_counted_and_limited_per_token(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 1, 10, 30, tzinfo=UTC))
    async with config_system(tmp_path, clock, write_limit=20) as system:
        tenant = await system.tenant()
        for left in range(19, -1, -1):
            answer = await tenant.engineer.post("/service", data={"name": f"s{left}"})
            assert int(answer.headers["fastly-ratelimit-remaining"]) == left
            reset = int(answer.headers["fastly-ratelimit-reset"])
            assert reset == int(datetime(2026, 11, 1, 11, tzinfo=UTC).timestamp())
        refused = await tenant.engineer.post("/service", data={"name": "more"})
        assert refused.status_code == 429
        assert refused.headers["fastly-ratelimit-remaining"] == "0"
        assert "20 writes" in refused.json()["detail"]
        read = await tenant.engineer.get("/service")
        assert "fastly-ratelimit-remaining" not in read.headers
        assert (await tenant.superuser.post("/service", data={"name": "other"})).is_success
        clock.advance(seconds=1800)
        assert (await tenant.engineer.post("/service", data={"name": "more"})).is_success


async def test_refused_writes_bear_the_headers_too(acme: Tenant) -> None:
    refused = await acme.engineer.post("/service", data={})
    assert refused.status_code == 422
    assert int(refused.headers["fastly-ratelimit-remaining"]) > 0


async def test_snapshots_have_ascending_revisions_and_drafts_are_not_told(
    system: ConfigSystem, acme: Tenant
) -> None:
    service_id = await acme.engineer.complete()
    drafted = await system.told("handoff.services.v1", service_id)
    assert len(drafted) == 1
    await acme.engineer.ok("PUT", f"/service/{service_id}/version/1/activate")
    await acme.engineer.ok("PUT", f"/service/{service_id}", data={"name": "renamed"})
    told = await system.told("handoff.services.v1", service_id)
    revisions = [event.data.revision for event in told]  # type: ignore[attr-defined]
    assert revisions == sorted(set(revisions))


async def test_a_reader_that_does_not_follow_delays_but_does_not_fail_a_call(
    tmp_path: Path,
) -> None:
    async with config_system(tmp_path, SystemClock(), settle_seconds=0.1) as system:

        async def start(_: object) -> dict[object, int]:
            return {}

        stuck = system.log.subscribe(["handoff.customers.v1"], group=None, positions=start)  # type: ignore[arg-type]
        try:
            await stuck.fetch(max_records=1, timeout=0)
            tenant = await system.tenant()
            assert await tenant.engineer.service()
        finally:
            await stuck.close()


async def metrics(person: Person) -> httpx.Response:
    transport = httpx.ASGITransport(person.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://config.test") as client:
        return await client.get("/metrics")


async def test_health_and_documents(system: ConfigSystem) -> None:
    nobody = system.person("")
    assert (await nobody.get("/healthz")).status_code == 200
    assert (await nobody.ok("GET", "/readyz"))["status"] == "ok"
    assert "handoff_config_settle_seconds" in (await metrics(nobody)).text
    document = await nobody.ok("GET", "/openapi.json")
    paths = document["paths"]
    for path in (
        "/service/{service_id}/version/{version}/websocket-rule/{name}",
        "/enabled-products/v1/websockets/services/{service_id}",
        "/v1/services/{service_id}/websockets/check",
        "/v1/customers/{customer_id}/contracts",
    ):
        assert path in paths
    ids = [op["operationId"] for methods in paths.values() for op in methods.values()]
    assert len(ids) == len(set(ids))
