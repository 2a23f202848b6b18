"""The config service with its loops going, on a real log and database, and people to call it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from handoff_common import codec
from handoff_common.clock import Clock
from handoff_common.database import Database
from handoff_common.events import Envelope
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import Service, running
from handoff_config.settings import ConfigSettings
from handoff_config.store import Store
from handoff_config.wiring import build
from support.databases import database_url
from support.openapi_conformity import Conformity

ROLES = ("superuser", "engineer", "billing", "user")


_conformities: list[Conformity] = []


def _conformity(app: FastAPI) -> Conformity:
    """Made once: every application of the process has the same document."""
    if not _conformities:
        _conformities.append(Conformity(app.openapi()))
    return _conformities[0]


class Person:
    """Somebody with a token. Calls give the answer; `ok` calls also assert that it went well."""

    def __init__(
        self,
        app: FastAPI,
        token: str,
        user_id: str = "",
        headers: Any = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.app = app
        self.token = token
        self.user_id = user_id
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=(address, 123)),
            base_url="http://config.test",
            headers={"Fastly-Key": token, **(headers or {})},
        )

    async def call(self, method: str, path: str, **given: Any) -> httpx.Response:
        """The answer, which was held against the OpenAPI document."""
        answer = await self._client.request(method, path, **given)
        _conformity(self.app).check(
            method,
            answer.request.url.raw_path.decode().partition("?")[0],
            answer.status_code,
            answer.json() if answer.content else None,
        )
        return answer

    async def get(self, path: str, **given: Any) -> httpx.Response:
        return await self.call("GET", path, **given)

    async def post(self, path: str, **given: Any) -> httpx.Response:
        return await self.call("POST", path, **given)

    async def put(self, path: str, **given: Any) -> httpx.Response:
        return await self.call("PUT", path, **given)

    async def delete(self, path: str, **given: Any) -> httpx.Response:
        return await self.call("DELETE", path, **given)

    async def ok(self, method: str, path: str, **given: Any) -> Any:
        """The body of a call that must succeed."""
        answer = await self.call(method, path, **given)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def service(self, name: str = "chat") -> str:
        """A new service's id."""
        return str((await self.ok("POST", "/service", data={"name": name}))["id"])

    async def complete(
        self, name: str = "chat", *, domain: str = "chat.example.com", **backend: Any
    ) -> str:
        """A new service whose version 1 has a domain and a backend, not active yet."""
        service_id = await self.service(name)
        draft = f"/service/{service_id}/version/1"
        await self.ok("POST", f"{draft}/domain", data={"name": domain})
        values = {"name": "origin", "address": "origin.example.com", **backend}
        await self.ok("POST", f"{draft}/backend", data=values)
        return service_id

    async def active(self, name: str = "chat", **given: Any) -> str:
        service_id = await self.complete(name, **given)
        await self.ok("PUT", f"/service/{service_id}/version/1/activate")
        return service_id


@dataclass
class Tenant:
    """A customer with one user of each role."""

    customer_id: str
    superuser: Person
    engineer: Person
    billing: Person
    user: Person


class ConfigSystem:
    """service: as `build` made it. store: a second one on the same database, for looking."""

    def __init__(
        self, folder: Path, log: SqliteLog, db: Database, clock: Clock, service: Service
    ) -> None:
        self.folder = folder
        self.log = log
        self.db = db
        self.clock = clock
        self.service = service
        self.store = Store(db, clock)

    @property
    def operator(self) -> Person:
        return self.person((self.folder / "operator-token").read_text().strip())

    @property
    def app(self) -> FastAPI:
        assert isinstance(self.service.app, FastAPI)
        return self.service.app

    def person(
        self, token: str, user_id: str = "", headers: Any = None, address: str = "127.0.0.1"
    ) -> Person:
        return Person(self.app, token, user_id, headers, address)

    async def tenant(
        self, name: str = "Acme", *, account_type: str = "paid", contract: bool = True
    ) -> Tenant:
        operator = self.operator
        customer = await operator.ok(
            "POST", "/v1/customers", json={"name": name, "account_type": account_type}
        )
        customer_id = customer["id"]
        if contract:
            await operator.ok(
                "POST",
                f"/v1/customers/{customer_id}/contracts",
                json={"product": "websockets", "starts_at": "2020-01-01T00:00:00Z"},
            )
        people = {role: await self.somebody(customer_id, role, name) for role in ROLES}
        return Tenant(customer_id, **people)

    async def somebody(self, customer_id: str, role: str, name: str = "Acme") -> Person:
        operator = self.operator
        user = await operator.ok(
            "POST",
            f"/v1/customers/{customer_id}/users",
            json={"login": f"{role}@{name.lower()}.example", "name": role, "role": role},
        )
        token = await operator.ok("POST", f"/v1/users/{user['id']}/tokens", json={"name": role})
        return self.person(token["access_token"], user["id"])

    async def told(self, topic: str, key: str) -> list[Envelope]:
        """What the log holds under a key, oldest first."""
        found: list[Envelope] = []
        for partition, (first, end) in (await self.log.ends(topic)).items():
            subscription = self.log.subscribe([topic], group=None, positions=_from_start)
            try:
                at = first
                while at < end:
                    for batch in await subscription.fetch(max_records=1000, timeout=1):
                        if batch.partition != partition:
                            continue
                        at = batch.next_offset
                        found += [
                            codec.decode(topic, r.value) for r in batch.records if r.key == key
                        ]
            finally:
                await subscription.close()
        return found


async def _from_start(_: Any) -> dict[Any, int]:
    return {}


@asynccontextmanager
async def config_system(folder: Path, clock: Clock, **settings: Any) -> AsyncIterator[ConfigSystem]:
    """Opens what is in the folder, or makes it. A write waits for longer than by default: a machine
    that is held up for a moment does not have a caller's own token refused."""
    settings = {"settle_seconds": 15, **settings}
    log = await SqliteLog.open(folder / "log.db")
    db = Database(await database_url(folder, "config"))
    try:
        service = build(
            ConfigSettings(data_dir=folder, sales_contact="sales@handoff.example", **settings),
            log=log,
            database=db,
            clock=clock,
        )
        async with running(service) as failed:
            yield ConfigSystem(folder, log, db, clock, service)
            assert not failed.done()
    finally:
        await db.close()
        await log.close()
