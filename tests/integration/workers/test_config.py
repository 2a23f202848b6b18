"""Two replicas of config on one Postgres database and one log: what holds in one holds across
them."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.events import ServiceSnapshot
from handoff_common.service import running
from handoff_common.topics import SERVICES
from handoff_config.settings import ConfigSettings
from handoff_config.wiring import build
from support.config_system import ConfigSystem, Person, config_system
from support.databases import database_url, drop_databases, use_postgres
from support.parts.postgres import Address


@pytest.fixture
async def replicas(
    tmp_path: Path, postgres_shared: Address
) -> AsyncIterator[tuple[ConfigSystem, ConfigSystem]]:
    use_postgres(tmp_path, postgres_shared)
    clock = SystemClock()
    async with config_system(tmp_path, clock) as first, AsyncExitStack() as stack:
        database = Database(await database_url(tmp_path, "config"), name="second")
        stack.push_async_callback(database.close)
        settings = ConfigSettings(
            data_dir=tmp_path / "second", sales_contact="sales@handoff.example"
        )
        service = build(settings, log=first.log, database=database, clock=clock)
        await stack.enter_async_context(running(service))
        yield first, ConfigSystem(tmp_path, first.log, database, clock, service)
        assert await first.store.differences() == []
    await drop_databases(tmp_path)


def through(system: ConfigSystem, person: Person) -> Person:
    """The same person, asking another replica."""
    return Person(system.service.app, person.token, person.user_id)  # type: ignore[arg-type]


async def test_one_of_two_takes_a_domain(replicas: tuple[ConfigSystem, ConfigSystem]) -> None:
    first, second = replicas
    acme = await first.tenant("Acme")
    other = await first.tenant("Other")
    for round_ in range(5):
        mine = await acme.engineer.complete(f"a{round_}", domain=f"*.r{round_}.example.com")
        theirs = await other.engineer.complete(f"b{round_}", domain=f"x.r{round_}.example.com")
        answers = await asyncio.gather(
            acme.engineer.put(f"/service/{mine}/version/1/activate"),
            through(second, other.engineer).put(f"/service/{theirs}/version/1/activate"),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_the_same_request_at_both_is_done_once(
    replicas: tuple[ConfigSystem, ConfigSystem],
) -> None:
    first, second = replicas
    acme = await first.tenant("Acme")
    key = {"Idempotency-Key": "one"}
    people = [acme.engineer, through(second, acme.engineer)] * 4
    answers = await asyncio.gather(
        *(person.post("/service", data={"name": "chat"}, headers=key) for person in people)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_what_the_log_is_told_of_a_service_ascends(
    replicas: tuple[ConfigSystem, ConfigSystem],
) -> None:
    first, second = replicas
    acme = await first.tenant("Acme")
    service_id = await acme.engineer.active()
    people = [acme.engineer, through(second, acme.engineer)]
    for name in ("a", "b", "c", "d"):
        answers = await asyncio.gather(
            *(
                person.put(f"/service/{service_id}", data={"name": f"{name}{n}"})
                for n, person in enumerate(people)
            )
        )
        assert {answer.status_code for answer in answers} <= {200, 409}
    told: defaultdict[str, list[int]] = defaultdict(list)
    for event in await first.told(SERVICES.name, service_id):
        assert isinstance(event, ServiceSnapshot)
        told[event.subject].append(event.data.revision)
    assert told and all(revisions == sorted(revisions) for revisions in told.values())


async def test_guesses_at_either_are_counted_together(
    replicas: tuple[ConfigSystem, ConfigSystem],
) -> None:
    first, second = replicas
    acme = await first.tenant("Acme")
    path = f"/v1/users/{acme.user.user_id}/password"
    assert (await acme.superuser.put(path, json={"password": "a long password"})).is_success
    nobody = [system.person("") for system in (first, second)]

    async def guess(number: int, password: str = "a wrong password") -> int:
        body = {"login": "user@acme.example", "password": password}
        return (await nobody[number % 2].post("/v1/sessions", json=body)).status_code

    answers = await asyncio.gather(*(guess(number) for number in range(16)))
    assert sorted(answers) == [401] * 10 + [429] * 6
    assert [await guess(number, "a long password") for number in range(2)] == [429, 429]
    anew = await through(second, acme.superuser).put(path, json={"password": "a new password"})
    assert anew.status_code == 204
    assert await guess(0, "a new password") == 201
