"""Billing as a whole, on a real embedded log and a real database, asked through its API."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx

from handoff_billing.settings import BillingSettings
from handoff_billing.wiring import build
from handoff_common.access import token_hash
from handoff_common.clock import ManualClock
from handoff_common.codec import encode
from handoff_common.database import Database
from handoff_common.events import (
    AccessData,
    AccessSnapshot,
    CustomerData,
    CustomerSnapshot,
    Envelope,
    ProgressData,
    ServiceData,
    ServiceSnapshot,
    UsageData,
    UsageProgress,
    UsageTotals,
)
from handoff_common.instants import from_ms
from handoff_common.log import Message, Position
from handoff_common.log_sqlite import SqliteLog
from handoff_common.minutes import HOUR_MS, month_bounds
from handoff_common.service import running
from handoff_common.topics import ACCESS, CUSTOMERS, SERVICES, USAGE
from support.databases import database_url

OCTOBER, NOVEMBER = month_bounds(2024, 10)
WRITTEN = datetime(2024, 10, 1, tzinfo=UTC)
Role = Literal["operator", "superuser", "engineer", "billing", "user"]
ROLES: tuple[Role, ...] = ("operator", "superuser", "engineer", "billing", "user")
MINE, THEIRS = "mine", "theirs"
SLICES = 2


def token(role: str, customer_id: str = MINE) -> str:
    return role if role == "operator" else f"{customer_id}-{role}"


@dataclass
class System:
    """A running billing service. `clock` stands at 5 November 2024, past the grace of October."""

    folder: Path
    clock: ManualClock = field(
        default_factory=lambda: ManualClock(datetime(2024, 11, 5, tzinfo=UTC))
    )
    settings: BillingSettings = field(default_factory=BillingSettings)
    revision: int = 0

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.log = await SqliteLog.open(self.folder / "log.db", partitions=2)
        self._stack.push_async_callback(self.log.close)
        self.database = Database(await database_url(self.folder, "billing"))
        self._stack.push_async_callback(self.database.close)
        self.service = build(self.settings, log=self.log, database=self.database, clock=self.clock)
        await self._stack.enter_async_context(running(self.service))
        transport = httpx.ASGITransport(self.service.app)
        self.http = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://billing")
        )

    async def stop(self) -> None:
        await self._stack.aclose()

    async def call(
        self, method: str, path: str, *, as_: str = "operator", body: Any = None, **query: Any
    ) -> httpx.Response:
        return await self.http.request(
            method,
            path,
            json=body,
            params=query or None,
            headers={"fastly-key": as_},
        )

    async def get(self, path: str, *, as_: str = "operator", **query: Any) -> Any:
        answer = await self.call("GET", path, as_=as_, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def publish(
        self, topic: str, key: str, event: Envelope, partition: int | None = None
    ) -> None:
        await self.log.append(topic, [Message(key, encode(event), partition)])

    async def people(self) -> None:
        """Two customers with a service and a token per role each, and an operator's token."""
        customers, services, tokens = [], [], []
        for customer_id in (MINE, THEIRS):
            customer = CustomerData(
                revision=1, customer_id=customer_id, name=f"{customer_id} ltd", account_type="paid"
            )
            service = ServiceData(
                revision=1,
                service_id=f"{customer_id}-chat",
                customer_id=customer_id,
                name=f"{customer_id} chat",
            )
            customers.append(CustomerSnapshot(**self._envelope(customer_id), data=customer))
            services.append(ServiceSnapshot(**self._envelope(service.service_id), data=service))
            for role in ROLES:
                if role == "operator" and customer_id != MINE:
                    # One is enough, and a second of its name would take its place in the log.
                    continue
                value = token(role, customer_id)
                access = AccessData(
                    revision=1,
                    token_id=value,
                    token_sha256=token_hash(value),
                    customer_id=None if role == "operator" else customer_id,
                    login=f"{role}@{customer_id}",
                    role=role,
                    created_at=WRITTEN,
                )
                tokens.append(AccessSnapshot(**self._envelope(value), data=access))
        for topic, events in ((CUSTOMERS, customers), (SERVICES, services), (ACCESS, tokens)):
            messages = [Message(event.subject, encode(event)) for event in events]
            await self.log.append(topic.name, messages)

    async def use(
        self,
        minutes: int = 0,
        *,
        customer_id: str = MINE,
        service_id: str | None = None,
        region: str = "europe",
        hour: int = 0,
        slice_: int = 0,
        version: tuple[int, int] | None = None,
        offset: int = 0,
        month_ms: int = OCTOBER,
        **counted: int,
    ) -> None:
        """A usage row of metering's, `hour` hours into the month; of the customer's own service
        unless another is named."""
        if version is None:
            self.revision += 1
            version = (1, self.revision)
        data = UsageData(
            customer_id=customer_id,
            service_id=service_id or f"{customer_id}-chat",
            region=region,
            hour=from_ms(month_ms + hour * HOUR_MS),
            slice=slice_,
            generation=version[0],
            revision=version[1],
            offset=offset,
            minutes=minutes,
            **counted,
        )
        # A key of its own for each version, so that the log's compaction takes none away.
        key = f"{customer_id}/{data.service_id}/{region}/{month_ms}-{hour}/{slice_}/{version}"
        await self.publish(USAGE.name, key, UsageTotals(**self._envelope(key), data=data))

    async def progress(self, **changes: Any) -> None:
        """Every slice's progress, past October unless changed, in every usage partition."""
        partitions = await self.log.partitions(USAGE.name)
        for slice_ in range(SLICES):
            self.revision += 1
            for partition in range(partitions):
                given: dict[str, Any] = {
                    "slice": slice_,
                    "slices": SLICES,
                    "generation": 1,
                    "revision": self.revision,
                    "position": 1000,
                    "through": from_ms(NOVEMBER),
                }
                key = f"progress/{slice_}/{partition}"
                event = UsageProgress(**self._envelope(key), data=ProgressData(**given | changes))
                await self.publish(USAGE.name, key, event, partition)

    async def settled(self) -> None:
        """Until billing has folded all that is in the log."""
        ends = await self.log.ends(USAGE.name)
        marks = [Position(USAGE.name, number, end) for number, (_, end) in ends.items()]
        assert await self.log.settled(marks, timeout=10)

    async def draft(self, customer_id: str = MINE, month: str = "2024-10") -> Mapping[str, Any]:
        listed = await self.get("/v1/invoices", customer_id=customer_id, month=month)
        [one] = listed["data"]
        found: Mapping[str, Any] = await self.get(f"/v1/invoices/{one['invoice_id']}")
        return found

    async def finalize(
        self, customer_id: str = MINE, *, month: str = "2024-10", **body: Any
    ) -> httpx.Response:
        invoice_id = (await self.draft(customer_id, month))["invoice_id"]
        return await self.call("POST", f"/v1/invoices/{invoice_id}/finalize", body=body or None)

    def _envelope(self, subject: str) -> dict[str, Any]:
        return {"id": subject, "source": "/tests", "subject": subject, "time": WRITTEN}
