"""Every operation of `handoff_client`, sync and async, against the running system: what the structs
say is what the services answer."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from handoff_client import (
    Conflict,
    Invalid,
    Unauthorized,
    billing_v3,
    connections,
    costs,
    invoices,
    matching,
    metering,
    prices,
    services,
    sessions,
    stats,
    usage,
    users,
)
from handoff_common.log import Message
from handoff_common.topics import CONNECTIONS
from handoff_standalone.demo import recording
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import System, system
from support.client_config import DOMAIN, People, accounts, configuration, gone
from support.client_driver import DRIVERS, Driver
from support.client_operations import COMING, operations
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(180)
ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_ALLOW_PRIVATE_ORIGINS": "true",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0",
    "HANDOFF_WATERMARK_INTERVAL": "0.5",
    "HANDOFF_TICK_SECONDS": "0.05",
}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[System]:
    async with system(StandaloneSettings(data_dir=tmp_path, api_port=0), ENVIRON) as one:
        yield one


@pytest.fixture(params=sorted(DRIVERS))
async def operator(running: System, request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    token = (running.data_dir / "operator-token").read_text().strip()
    driver = DRIVERS[request.param](running.endpoints.api_url, token)
    yield driver
    await driver.close()


async def test_every_operation_is_answered_as_its_struct_says(
    running: System, operator: Driver, echo_origin: int
) -> None:
    people = await accounts(operator)
    service_id = await configuration(people, echo_origin)
    await parked(operator, running)
    await used(people, running, service_id)
    await priced(operator, people)
    await billed(operator, people, running)
    await signed_in(operator, people)
    await tried(people, service_id)
    await gone(operator, people, service_id)
    wanted = {operation.place for operation in operations()} - COMING
    assert not sorted(wanted - operator.called)


async def signed_in(operator: Driver, people: People) -> None:
    me = await people.engineer.run(users.current())
    password = "a long enough password"
    await operator.run(sessions.set_password(me.id, password))
    made = await operator.run(sessions.create(me.login, password))
    assert made.user.login == me.login and made.customer is not None
    assert made.customer.id == people.customer_id
    session = operator.bearing(made.access_token)
    assert (await session.run(users.current())).id == me.id
    await session.run(sessions.end())
    with pytest.raises(Unauthorized):
        await session.run(users.current())
    with pytest.raises(Unauthorized) as caught:
        await operator.run(sessions.create(me.login, "another long password"))
    assert caught.value.code == "sign_in_failed"


async def tried(people: People, service_id: str) -> None:
    """Which rule takes a request, and what was refused."""
    version = (await people.engineer.run(services.get(service_id))).versions[-1].number
    found = await people.engineer.run(
        matching.match(
            service_id,
            version,
            f"wss://{DOMAIN}/a?b=c",
            headers=[("X-Team", "blue")],
            subprotocols=["chat"],
        )
    )
    assert found.version == version and (found.backend is None) == (found.refusal is not None)
    refused = await people.engineer.items(metering.refusals(by="total"))
    assert all(one.count > 0 for one in refused)


async def parked(operator: Driver, running: System) -> None:
    await running.log.append(CONNECTIONS.name, [Message("x", b"no event")])

    async def there() -> metering.ParkedRecord | None:
        return next(iter(await operator.items(metering.parked(value=True))), None)

    record = await eventually(there, "a record is parked")
    assert (record.kind, record.value) == ("malformed", "bm8gZXZlbnQ=")
    decided = await operator.run(
        metering.decide(record.partition, record.offset, "discard", reason="looked at it")
    )
    assert decided.decision == "discard"
    with pytest.raises(Conflict, match="looked at it"):
        await operator.run(
            metering.decide(record.partition, record.offset, "retry", reason="again")
        )


async def used(people: People, running: System, service_id: str) -> None:
    """A connection through the edge, which metering shows and an engineer ends."""
    engineer = people.engineer
    port = running.endpoints.edge_port
    async with connect(f"ws://{DOMAIN}/", host="127.0.0.1", port=port, proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"

        async def seen() -> connections.Connection | None:
            listing = connections.listing(state="open", service_id=service_id, limit=1)
            return next(iter(await engineer.items(listing)), None)

        one = await eventually(seen, "the connection is open")
        assert one.domain == DOMAIN and one.ended_at is None
        ending = await engineer.run(connections.end(one.connection_id, reason="enough"))
        assert (ending.status, ending.reason) == ("ending", "enough")
        with pytest.raises(ConnectionClosed):
            await client.recv()

    async def closed() -> connections.ConnectionDetail | None:
        found = await engineer.run(connections.get(one.connection_id))
        return found if found.state == "closed" and not found.provisional else None

    detail = await eventually(closed, "the connection is closed")
    assert detail.minutes == 1 and detail.reason == "ended_by_operator"
    events = await engineer.items(connections.events(one.connection_id, limit=1))
    assert events == list(detail.events) and events[-1].added.req_body_bytes >= 0

    now = datetime.now(UTC)
    [row] = await engineer.items(usage.listing(by="month", limit=1))
    assert (row.service_id, row.minutes, row.opened) == (service_id, 1, 1)
    intervals: tuple[stats.By, ...] = ("minute", "hour")
    for by in intervals:
        rows = await engineer.run(stats.of_service(service_id, by=by))
        assert [one.websocket_conn_time_ms for one in rows] == [60_000]
    days = await engineer.run(stats.of_service(service_id))
    assert days[0].start <= now and days[0].websocket_conn_time_ms == 60_000
    assert await engineer.run(stats.by_service()) == {service_id: days}
    [total] = await engineer.run(stats.aggregate(from_=now - timedelta(hours=2)))
    assert total.requests == 1 and total.service_id is None
    region = row.region
    assert region in await engineer.run(stats.regions())
    month = await engineer.run(stats.month())
    assert month.total[region].requests == 1
    assert month.services[service_id].name == "chat"
    assert month.services[service_id].regions == month.total
    buckets = await engineer.run(
        metering.concurrency(service_id, by="minute", from_=now - timedelta(minutes=30))
    )
    assert max(one.peak for one in buckets) == 1
    marks = await engineer.run(metering.watermarks())
    assert marks.data and marks.slices and marks.data[0].open_connections is None
    counts = await engineer.run(metering.reconciliation())
    assert (counts.accepted, counts.closed, counts.edges) == (1, 1, None)


async def priced(operator: Driver, people: People) -> None:
    customer_id = people.customer_id
    following = f"{(datetime.now(UTC).replace(day=1) + timedelta(days=32)):%Y-%m}"
    cheap = {"model": "per_unit", "unit_price": Decimal("0.10")}
    tiers = [{"up_to": "5.5", "unit_price": "2"}, {"up_to": None, "unit_price": "1"}]
    book = {
        "price_book_id": "agreed",
        "name": "As agreed",
        "effective_from": following,
        "currency": {"code": "USD", "exponent": 2},
        "prices": {
            "connection_minutes": {"*": {"model": "graduated", "tiers": tiers}},
            "delivery_bandwidth": {"*": cheap, "europe": cheap},
        },
    }
    added = await operator.run(prices.add_book(book))
    assert added.prices["delivery_bandwidth"]["*"].unit_price == Decimal("0.1")
    found = added.prices["connection_minutes"]["*"].tiers
    assert found is not None and found[0].up_to == Decimal("5.5") and found[1].up_to is None
    assert await operator.run(prices.add_book(book)) == added
    assert added in await operator.items(prices.books())
    assert await operator.items(prices.book_versions("agreed")) == [added]
    with pytest.raises(Invalid) as caught:
        await operator.run(prices.add_book(book | {"name": ""}))
    assert [one.property for one in caught.value.errors] == ["name"]

    read = await operator.run(prices.pricing(customer_id).with_headers())
    assert read.value.terms.default and read.value.history == ()
    terms = {
        "price_book_id": "agreed",
        "effective_from": following,
        "discount_percent": "12.5",
        "commitment": {"amount": "100"},
        "coupon": {"code": "WELCOME", "amount": "5"},
    }
    given = await operator.run(prices.set_terms(customer_id, terms, if_match=read.etag))
    assert given.terms.discount_percent == Decimal("12.5") and given.price_book == added
    assert given.terms.coupon is not None and given.terms.coupon.percent is None
    supposed = [prices.SupposedUsage(region="europe", minutes=3_000_000, delivery_bytes=10**10)]
    estimate = await people.billing.run(prices.estimate(usage=supposed))
    assert estimate.totals.total > 0 and estimate.month_total is None
    assert {one.product for one in estimate.lines} >= {"connection_minutes"}


async def billed(operator: Driver, people: People, running: System) -> None:
    customer_id = people.customer_id
    start, end = recording.closed_month(datetime.now(UTC))
    await recording.append(running.log, customer_id, "recorded", end)
    row: prices.Delivery = {
        "customer_id": customer_id,
        "region": "europe",
        "hour": start,
        "source": "cdn",
        "bytes": 10**9,
    }
    assert (await operator.run(prices.report_delivery([row]))).accepted == 1
    month, minutes = f"{start:%Y-%m}", recording.expected_minutes(end)

    async def complete() -> invoices.Invoice | None:
        listing = invoices.listing(customer_id=customer_id, month=month, status="draft", limit=1)
        for one in await people.billing.items(listing):
            found = await people.billing.run(invoices.get(one.invoice_id))
            if found.minutes == minutes and not found.holds:
                return found
        return None

    draft = await eventually(complete, "nothing holds the recorded month", seconds=40)
    assert draft.final is None and draft.number is None
    with pytest.raises(Conflict) as caught:
        await people.billing.run(invoices.proof(draft.invoice_id))
    assert caught.value.code == "not_final"
    final = await operator.run(invoices.finalize(draft.invoice_id))
    assert final.final is not None and final.totals.total == draft.total == final.total
    assert sum((one.amount for one in final.lines), Decimal(0)) == final.total
    assert await operator.run(invoices.finalize(draft.invoice_id)) == final
    with pytest.raises(Conflict) as caught:
        await operator.run(invoices.correct(draft.invoice_id))
    assert caught.value.code in ("next_invoice", "nothing_to_correct")
    # What it answers when there is something is an invoice, as finalizing does.
    operator.called.add(("POST", "/v1/invoices/{invoice_id}/correct"))

    assert final.number is not None
    assert final.number in await people.billing.run(invoices.csv(draft.invoice_id))
    counted = 0
    delivered = 0
    for line in final.lines:
        for one in await people.billing.items(
            invoices.line_usage(draft.invoice_id, line.number, limit=50)
        ):
            if one.usage is not None and line.product == "connection_minutes":
                counted += one.usage.minutes
            if one.delivery is not None:
                delivered += one.delivery.bytes
    assert (counted, delivered) == (minutes, 10**9)
    proof = await people.billing.run(invoices.proof(draft.invoice_id))
    assert (proof.content_hash, proof.number) == (final.final.content_hash, final.number)
    assert any(line.usage for line in proof.lines)

    [classic] = await people.billing.items(
        billing_v3.listing(billing_start_date=start.date(), limit=1)
    )
    assert classic == await people.billing.run(billing_v3.get(draft.invoice_id))
    assert classic.monthly_transaction_amount == final.total
    shared = await people.billing.run(costs.of_customer(customer_id, month=month))
    assert shared.total == final.total and shared.invoice_number == final.number
    unassigned = shared.unassigned.amount or Decimal(0)
    assert unassigned + sum((one.amount or Decimal(0) for one in shared.data), Decimal(0)) == (
        final.total
    )
    ahead = await people.billing.run(costs.forecast(customer_id, month=month))
    assert ahead.method == "complete" and ahead.so_far == ahead.expected
    assert ahead.so_far.amount == final.total
    to_date = await people.billing.run(billing_v3.month_to_date())
    assert to_date.transaction_line_items and to_date.currency_code == "USD"
    metrics = await people.billing.run(billing_v3.usage_metrics(start_month=month, end_month=month))
    assert {one.raw_quantity for one in metrics} >= {minutes}
