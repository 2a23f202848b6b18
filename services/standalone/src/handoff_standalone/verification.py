"""`handoff verify-invoice`: an invoice proved from the log alone.

Takes prices and terms from the invoice's document, rebuilds the usage (of the months that it
corrects, too) from the connection events up to the positions stored beside it, rates it again with
the same code, and compares the bytes; what was billed before is compared with the earlier invoices.
It asks no service and no projection: only the log.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import NamedTuple

from handoff_billing import usage as billed
from handoff_billing.verify import (
    DeliveryCheck,
    Difference,
    Logged,
    check_billed,
    check_delivery,
    check_links,
    delivery_months,
    verify,
)
from handoff_common import codec
from handoff_common.errors import HandoffError, Unreadable
from handoff_common.events import (
    ConnectionEvent,
    DeliveryUsage,
    InvoiceData,
    InvoiceFinalized,
)
from handoff_common.instants import to_ms
from handoff_common.log import EventLog, Partition, Record
from handoff_common.minutes import month_of
from handoff_common.topics import CONNECTIONS, DELIVERY, INVOICES
from handoff_metering.replay import Reading
from handoff_metering.settings import KEEP_MONTHS
from handoff_metering.usage import usage_at

_BATCH = 5_000


class NoSuchInvoice(HandoffError):
    code = "no_such_invoice"


class Proof(NamedTuple):
    """events: connection events that count; unreadable: records that do not: those that metering
    parked, and nobody decided to retry. delivery: how many of the document's delivery rows the log
    bears out."""

    invoice: InvoiceData
    ok: bool
    rebuilt_hash: str
    difference: Difference | None
    events: int
    unreadable: int
    delivery: DeliveryCheck


async def invoices(log: EventLog) -> list[InvoiceData]:
    """Every final invoice in the log, by number."""
    found: dict[str, InvoiceData] = {}
    async for record in _records(log, INVOICES.name, {}):
        event: InvoiceFinalized = codec.decode(INVOICES.name, record.value)
        found.setdefault(event.data.number, event.data)
    return [found[number] for number in sorted(found)]


async def prove(log: EventLog, wanted: str, *, keep_months: int = KEEP_MONTHS) -> Proof:
    """Prove one invoice, named by its id or its number. keep_months: as metering has it, which
    parks what comes later. Raises NoSuchInvoice."""
    every = await invoices(log)
    named = [data for data in every if wanted in (data.invoice_id, data.number)]
    if not named:
        known = ", ".join(data.number for data in every) or "none"
        raise NoSuchInvoice(f"no invoice {wanted!r} in the log; there are: {known}")
    invoice = named[0]
    broken = check_links(every)
    cut = {int(number): offset for number, offset in invoice.positions.items()}
    events: list[tuple[int, ConnectionEvent]] = []
    reading = Reading(keep_months, invoice.customer_id)
    async for record in _records(log, CONNECTIONS.name, cut):
        event = reading.take(record)
        if event is not None and event.data.customer_id == invoice.customer_id:
            events.append((record.partition, event))
    through = {int(number): to_ms(instant) for number, instant in invoice.through.items()}
    usage = {
        (key.service_id, key.region, key.hour_ms): billed.Totals(
            total.minutes, total.counters, total.opened, total.closed, total.lost
        )
        for key, total in usage_at(events, through).items()
        if key.customer_id == invoice.customer_id
    }
    result = verify(invoice.content, usage)
    delivery = check_delivery(
        invoice.content, await _delivery(log, invoice), invoice.delivery_revision
    )
    same = result.ok and result.content_hash == invoice.content_hash
    # What the document says of earlier invoices, those invoices say too.
    broken = broken or (check_billed(invoice, every) if result.ok else None)
    return Proof(
        invoice,
        same and broken is None and delivery.difference is None,
        result.rebuilt_hash,
        result.difference or delivery.difference or broken,
        len(events),
        reading.parked + reading.discarded,
        delivery,
    )


async def _delivery(log: EventLog, invoice: InvoiceData) -> dict[tuple[str, int, str], Logged]:
    """The customer's latest delivery rows of the months that the invoice counts them of."""
    months = delivery_months(invoice.content)
    found: dict[tuple[str, int, str], Logged] = {}
    async for record in _records(log, DELIVERY.name, {}):
        try:
            event: DeliveryUsage = codec.decode(DELIVERY.name, record.value)
        except Unreadable:
            continue
        data, hour_ms = event.data, to_ms(event.data.hour)
        if data.customer_id != invoice.customer_id or month_of(hour_ms) not in months:
            continue
        key = (data.region, hour_ms, data.source)
        if key not in found or found[key].revision < data.revision:
            found[key] = Logged(data.revision, data.bytes)
    return found


async def _records(log: EventLog, topic: str, upto: Mapping[int, int]) -> AsyncIterator[Record]:
    """All records of a topic, each partition up to its offset in `upto`, or to its present end."""

    async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {}

    ends = {number: end for number, (_, end) in (await log.ends(topic)).items()}
    limits = {
        number: min(end, upto.get(number, 0 if upto else end)) for number, end in ends.items()
    }
    left = {number for number, end in limits.items() if end > 0}
    subscription = log.subscribe([topic], group=None, positions=from_start)
    try:
        while left:
            for batch in await subscription.fetch(max_records=_BATCH, timeout=1.0):
                for record in _before(batch.records, limits[batch.partition]):
                    yield record
                if batch.next_offset >= limits[batch.partition]:
                    left.discard(batch.partition)
    finally:
        await subscription.close()


def _before(records: Sequence[Record], end: int) -> Iterator[Record]:
    for record in records:
        if record.offset < end:
            yield record
