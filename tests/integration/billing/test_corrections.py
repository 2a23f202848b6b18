"""Late usage of a final month: shown at once, billed with the next invoice, proved, once."""

import asyncio
import csv
import io
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from handoff_billing.corrections import billed_by
from handoff_billing.store import corrections, invoices, rows
from handoff_billing.usage import Totals
from handoff_billing.verify import check_billed, check_links, verify
from handoff_common import codec
from handoff_common.events import Counters, InvoiceData, UsageData
from handoff_common.instants import from_ms
from handoff_common.log import Partition
from handoff_common.minutes import HOUR_MS, next_month
from handoff_common.topics import INVOICES
from support.billing_system import MINE, NOVEMBER, OCTOBER, THEIRS, System, token
from support.databases import Engine
from support.parts.waiting import eventually

DECEMBER = next_month(NOVEMBER)
SERVICE = f"{MINE}-chat"


async def published(system: System) -> list[InvoiceData]:
    """The invoices in the log, by number."""
    found = []
    for number, (first, end) in (await system.log.ends(INVOICES.name)).items():
        if end > first:
            records, _ = await system.log.records(Partition(INVOICES.name, number), first, 1000)
            found += [codec.decode(INVOICES.name, record.value).data for record in records]
    return sorted(found, key=lambda data: data.number)


async def final_october(system: System, minutes: int = 4_000_000, **used: Any) -> dict[str, Any]:
    await system.use(minutes, **used)
    await system.progress()
    await system.settled()
    answer = await system.finalize()
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def change(system: System, minutes: int, **used: Any) -> None:
    """October's first hour comes to something else."""
    await system.use(minutes, **used)
    await system.settled()


async def november_over(system: System) -> None:
    system.clock.advance(seconds=30 * 86_400)
    await system.progress(through=from_ms(DECEMBER))
    await system.settled()


def figures(invoice: Any) -> list[tuple[str, int, str]]:
    return [(x["kind"], x["raw_quantity"], x["amount"]) for x in invoice["lines"]]


async def test_a_correction_is_on_the_current_months_draft_at_once(system: System) -> None:
    october = await final_october(system)
    await system.use(1_000_000, month_ms=NOVEMBER)
    await change(system, 6_000_000)
    draft = await system.draft(month="2024-11")
    assert figures(draft) == [("usage", 1_000_000, "0.25"), ("correction", 2_000_000, "0.5")]
    line = draft["lines"][1]
    assert line["corrects"] == {
        "invoice": october["number"],
        "period_start": "2024-10-01T00:00:00Z",
        "kind": "usage",
    }
    assert line["description"] == (
        "Correction of INV-2024-000001, 2024-10: WebSocket connection time, europe"
    )
    assert "from=2024-10-01" in line["connections"]
    assert draft["totals"] == {
        "usage": "0.25",
        "adjustments": "0",
        "corrections": "0.5",
        "total": "0.75",
    }
    assert (draft["minutes"], draft["lines"][0]["corrects"]) == (1_000_000, None)
    billing = token("billing")
    so_far = await system.get("/billing/v3/invoices/month-to-date", as_=billing)
    assert so_far["monthly_transaction_amount"] == "0.75"
    assert so_far["transaction_line_items"][1]["description"] == line["description"]
    assert so_far["transaction_line_items"][1]["units"] == 2
    behind = await system.get(f"/v1/invoices/{draft['invoice_id']}/lines/2/usage")
    assert [(x["usage"]["hour"], x["usage"]["minutes"]) for x in behind["data"]] == [
        ("2024-10-01T00:00:00Z", 6_000_000)
    ]
    now = await system.get(f"/v1/invoices/{october['invoice_id']}")
    assert (now["total"], now["late_usage"]["amount"]) == ("1", "0.5")
    assert now["late_usage"]["next_month"] == "2024-11"


async def test_the_next_invoice_bills_it_once_and_proves_it(system: System) -> None:
    october = await final_october(system, resp_body_bytes=10**9, lost=1)
    await system.use(1_000_000, month_ms=NOVEMBER)
    await change(system, 2_000_000, resp_body_bytes=3 * 10**9)
    await november_over(system)
    draft = await system.draft(month="2024-11")
    answer = await system.finalize(month="2024-11")
    assert answer.status_code == 200, answer.text
    november = answer.json()
    assert november["lines"] == draft["lines"]
    assert figures(november) == [
        ("usage", 1_000_000, "0.25"),
        ("correction", -2_000_000, "-0.5"),
        ("correction", 2 * 10**9, "0.24"),
        ("correction", -1, "0"),
        ("carried_forward", 0, "0.01"),
    ]
    assert november["total"] == "0"

    every = await published(system)
    assert check_links(every) is None
    now = {
        (SERVICE, "europe", OCTOBER): Totals(2_000_000, Counters(resp_body_bytes=3 * 10**9)),
        (SERVICE, "europe", NOVEMBER): Totals(1_000_000),
    }
    assert verify(every[1].content, now).ok
    assert check_billed(every[1], every) is None
    was = {**now, (SERVICE, "europe", OCTOBER): Totals(4_000_000)}
    difference = verify(every[1].content, was).difference
    assert difference is not None
    assert difference.path.startswith("corrections.0.usage.rows.0")
    document = msgspec.json.decode(every[1].content)
    assert document["corrections"][0]["billed"][0]["invoice"] == october["number"]

    proof = await system.get(f"/v1/invoices/{november['invoice_id']}/proof")
    assert [row["minutes"] for row in proof["lines"][1]["usage"]] == [2_000_000]
    answer = await system.call("GET", f"/v1/invoices/{november['invoice_id']}.csv")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert sum(Decimal(line["amount"]) for line in lines) == 0
    assert lines[1]["corrects_invoice"] == october["number"]

    after = await system.get(f"/v1/invoices/{october['invoice_id']}")
    assert (after["late_usage"]["amount"], after["late_usage"]["lines"]) == ("0", [])
    assert after["corrected_by"] == [{"number": november["number"], "amount": "-0.26"}]
    assert {**after, "late_usage": None, "corrected_by": None} == {
        **october,
        "late_usage": None,
        "corrected_by": None,
    }
    december = await system.draft(month="2024-12")
    assert figures(december) == [("carried_over", 0, "-0.01"), ("carried_forward", 0, "0.01")]
    assert december["lines"][0]["corrects"]["invoice"] == november["number"]


async def test_several_corrections_add_up(system: System) -> None:
    """Up, down and up again, over three invoices, under a minimum: as if rated once."""
    body = {"price_book_id": "example", "effective_from": "2024-10", "monthly_minimum": "2"}
    answer = await system.call("PUT", "/v1/customers/mine/pricing", body=body)
    assert answer.status_code == 200, answer.text
    october = await final_october(system)
    added = [9_000_000, -3_000_000, 345_678]
    ends = [DECEMBER, next_month(DECEMBER), next_month(next_month(DECEMBER))]
    for month, minutes, end in zip(("2024-11", "2024-12", "2025-01"), added, ends, strict=True):
        await change(system, 4_000_000 + minutes)
        system.clock._ns = (end + 48 * HOUR_MS) * 1_000_000
        await system.progress(through=from_ms(end))
        await system.settled()
        assert (await system.finalize(month=month)).status_code == 200
    found: dict[Any, Decimal] = {}
    for data in await published(system):
        billed = billed_by(msgspec.json.decode(data.content), data.number, october["number"])
        for key, one in billed.lines.items():
            found[key] = found.get(key, Decimal(0)) + one.amount
    estimate = await system.call(
        "POST", "/v1/estimates", body={"customer_id": MINE, "month": "2024-10"}
    )
    expected = {x["kind"]: Decimal(x["amount"]) for x in estimate.json()["lines"]}
    assert estimate.json()["lines"][0]["raw_quantity"] == 4_345_678
    assert {key.kind: amount for key, amount in found.items() if amount} == expected


async def test_what_is_held_of_the_corrected_month_holds_the_next_invoice(system: System) -> None:
    await final_october(system)
    await november_over(system)
    await change(system, 6_000_000, offset=5_000)
    draft = await system.draft(month="2024-11")
    assert [hold["code"] for hold in draft["holds"]] == ["rows_beyond_progress"]
    assert "2024-10-01" in draft["holds"][0]["detail"]
    answer = await system.finalize(month="2024-11")
    assert answer.status_code == 409
    await system.progress(through=from_ms(DECEMBER), position=6_000)
    await system.settled()
    assert (await system.finalize(month="2024-11")).status_code == 200


async def test_a_correction_stands_on_one_draft_at_a_time(system: System) -> None:
    await final_october(system)
    await system.use(1, month_ms=NOVEMBER)
    await november_over(system)
    await change(system, 6_000_000)
    assert len((await system.draft(month="2024-12"))["lines"]) == 0
    assert len((await system.draft(month="2024-11"))["lines"]) == 2
    assert (await system.finalize(month="2024-11")).status_code == 200
    await change(system, 7_000_000)
    assert figures(await system.draft(month="2024-12")) == [("correction", 1_000_000, "0.25")]


async def test_a_rebuild_corrects_nothing_and_is_looked_at_once(system: System) -> None:
    await final_october(system)
    await system.use(4_000_000, version=(2, 1))
    await system.progress(generation=2)
    await system.settled()
    assert await late_months(system) == [OCTOBER]
    assert (await system.draft(month="2024-11"))["lines"] == []
    system.clock.advance(seconds=30 * 86_400)
    await system.progress(generation=2, through=from_ms(DECEMBER))
    await system.settled()
    assert (await system.finalize(month="2024-11")).json()["lines"] == []
    assert await late_months(system) == []


async def late_months(system: System) -> list[int]:
    async with system.database.read() as tx:
        return list(await tx.scalars(text("SELECT month_ms FROM late_months")))


async def test_only_late_rows_mark_a_month(system: System) -> None:
    final = await final_october(system)
    await system.use(1, month_ms=NOVEMBER)
    await system.use(1, customer_id=THEIRS)
    await system.settled()
    assert await late_months(system) == []
    # Asking once more has it looked at again.
    assert (await system.finalize()).json()["number"] == final["number"]
    assert await late_months(system) == [OCTOBER]


async def test_late_delivery_is_corrected_too(system: System) -> None:
    final = await final_october(system)
    row = {"region": "europe", "hour": "2024-10-03T05:00:00Z", "source": "cdn", "bytes": 10**10}
    body = {"data": [{"customer_id": MINE, **row}]}
    assert (await system.call("POST", "/v1/delivery-usage", body=body)).status_code == 200
    draft = await system.draft(month="2024-11")
    assert figures(draft) == [("correction", 10**10, "1.2")]
    assert draft["lines"][0]["websocket_raw_quantity"] == 0
    behind = await system.get(f"/v1/invoices/{draft['invoice_id']}/lines/1/usage")
    assert [x["delivery"] and x["delivery"]["bytes"] for x in behind["data"]] == [10**10]
    assert final["total"] == "1"


# --- Alone ---------------------------------------------------------------------------------------


async def correct(system: System, invoice: Any, **body: Any) -> Any:
    path = f"/v1/invoices/{invoice['invoice_id']}/correct"
    return await system.call("POST", path, body=body or None)


async def in_euros(system: System, month: str) -> None:
    book = {
        "price_book_id": "euros",
        "name": "Euros",
        "effective_from": "2020-01",
        "currency": {"code": "EUR", "exponent": 2},
        "prices": {
            name: {"*": {"model": "per_unit", "unit_price": "1"}}
            for name in ("connection_minutes", "delivery_bandwidth")
        },
    }
    assert (await system.call("POST", "/v1/price-books", body=book)).status_code == 201
    body = {"price_book_id": "euros", "effective_from": month}
    answer = await system.call("PUT", "/v1/customers/mine/pricing", body=body)
    assert answer.status_code == 200, answer.text


async def test_another_currency_bears_no_correction_and_one_is_issued_alone(
    system: System, engine: Engine
) -> None:
    october = await final_october(system)
    await in_euros(system, "2024-11")
    assert (await correct(system, october)).json()["type"].endswith(":nothing_to_correct")
    await change(system, 6_000_000)
    assert (await system.draft(month="2024-11"))["lines"] == []
    shown = await system.get(f"/v1/invoices/{october['invoice_id']}")
    assert (shown["late_usage"]["amount"], shown["late_usage"]["next_month"]) == ("0.5", None)

    answer = await correct(system, october)
    assert answer.status_code == 200, answer.text
    alone = answer.json()
    assert (alone["kind"], alone["status"], alone["number"]) == (
        "correction",
        "final",
        "INV-2024-000002",
    )
    assert (alone["total"], alone["currency"]) == ("0.5", "USD")
    assert alone["invoice_id"] != october["invoice_id"]
    assert (alone["period_start"], alone["late_usage"]) == ("2024-10-01T00:00:00Z", None)
    assert figures(alone) == [("correction", 2_000_000, "0.5")]
    assert (await correct(system, october)).status_code == 409

    # Less than was billed: a credit note, which stands for itself.
    await change(system, 1_000_000)
    credit = (await correct(system, october)).json()
    assert (credit["total"], credit["number"]) == ("-1.25", "INV-2024-000003")
    after = await system.get(f"/v1/invoices/{october['invoice_id']}")
    assert after["corrected_by"] == [
        {"number": "INV-2024-000002", "amount": "0.5"},
        {"number": "INV-2024-000003", "amount": "-1.25"},
    ]
    for one in (alone, credit):
        again = await system.get(f"/v1/invoices/{one['invoice_id']}")
        assert again == one
        assert (await correct(system, one)).json()["type"].endswith(":nothing_to_correct")
        finalized = await system.call("POST", f"/v1/invoices/{one['invoice_id']}/finalize")
        assert finalized.json() == one
        assert (await system.call("GET", f"/v1/invoices/{one['invoice_id']}.csv")).text
        proof = await system.get(f"/v1/invoices/{one['invoice_id']}/proof")
        assert proof["document"]["document"] == "handoff.correction.v1"

    every = await published(system)
    assert check_links(every) is None
    for data, minutes in ((every[1], 6_000_000), (every[2], 1_000_000)):
        assert verify(data.content, {(SERVICE, "europe", OCTOBER): Totals(minutes)}).ok
        assert check_billed(data, every) is None

    found: list[str] = []
    query = {"customer_id": MINE, "month": "2024-10", "limit": "1"}
    while True:
        page = await system.get("/v1/invoices", **query)
        found += [one["invoice_id"] for one in page["data"]]
        if page["meta"]["next_cursor"] is None:
            break
        query["cursor"] = page["meta"]["next_cursor"]
    assert sorted(found) == sorted(x["invoice_id"] for x in (october, alone, credit))
    listed = await system.get("/billing/v3/invoices", as_=token("billing"), limit="2")
    rest = await system.get(
        "/billing/v3/invoices", as_=token("billing"), cursor=listed["meta"]["next_cursor"]
    )
    numbers = [one["statement_number"] for one in (*listed["data"], *rest["data"])]
    assert sorted(numbers) == [f"INV-2024-{n:06d}" for n in (1, 2, 3)]
    assert {x["billing_start_date"] for x in listed["data"]} == {"2024-10-01T00:00:00Z"}


async def test_what_was_carried_forward_is_given_back_when_the_currency_ends(
    system: System,
) -> None:
    october = await final_october(system)
    await in_euros(system, "2024-12")
    await change(system, 2_000_000)
    await november_over(system)
    november = (await system.finalize(month="2024-11")).json()
    assert (november["total"], figures(november)[-1]) == ("0", ("carried_forward", 0, "0.5"))
    assert (await system.draft(month="2024-12"))["lines"] == []
    credit = (await correct(system, november)).json()
    assert figures(credit) == [("carried_over", 0, "-0.5")]
    assert credit["total"] == "-0.5"
    every = await published(system)
    assert verify(every[2].content, {}).ok
    assert check_billed(every[2], every) is None
    assert (await correct(system, november)).status_code == 409
    assert (await correct(system, october)).status_code == 409


async def test_where_there_is_a_next_invoice_none_is_issued_alone(system: System) -> None:
    october = await final_october(system)
    await change(system, 6_000_000)
    answer = await correct(system, october)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:handoff:error:next_invoice"
    assert "2024-11" in answer.json()["detail"]
    draft = await system.draft(month="2024-11")
    assert (await correct(system, draft)).json()["type"].endswith(":not_final")
    answer = await system.call(
        "POST", f"/v1/invoices/{october['invoice_id']}/correct", as_=token("superuser")
    )
    assert answer.status_code == 403
    assert len(await published(system)) == 1


async def test_a_correction_alone_is_held_as_any_invoice(system: System) -> None:
    october = await final_october(system)
    await in_euros(system, "2024-11")
    await change(system, 6_000_000, offset=5_000)
    answer = await correct(system, october)
    assert [e["property"] for e in answer.json()["errors"]] == ["rows_beyond_progress"]
    answer = await correct(system, october, force=True, reason="the slice is gone")
    assert answer.json()["final"]["forced"]["reason"] == "the slice is gone"


async def test_each_correction_is_billed_once_whoever_asks(system: System) -> None:
    october = await final_october(system)
    await in_euros(system, "2024-11")
    await change(system, 6_000_000)
    answers = await asyncio.gather(*(correct(system, october) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert len(await published(system)) == 2


async def test_what_settles_what_cannot_be_changed(system: System, engine: Engine) -> None:
    october = await final_october(system)
    await in_euros(system, "2024-11")
    await change(system, 6_000_000)
    assert (await correct(system, october)).status_code == 200
    statements = ["UPDATE settlements SET kind = 'x'", "DELETE FROM settlements"]
    if engine == "sqlite":
        statements.append("INSERT OR REPLACE INTO settlements SELECT * FROM settlements")
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"):
            async with system.database.transaction() as tx:
                await tx.execute(text(statement))


# --- Rows that arrive while a month becomes final ------------------------------------------------


def late_row(minutes: int) -> UsageData:
    return UsageData(
        customer_id=MINE,
        service_id=SERVICE,
        region="europe",
        hour=from_ms(OCTOBER + 5 * HOUR_MS),
        slice=0,
        generation=1,
        revision=1,
        offset=0,
        minutes=minutes,
    )


# SQLite's writers take turns: there nothing arrives meanwhile.
on_postgres = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


@on_postgres
async def test_a_row_that_a_finalization_did_not_see_marks_its_month(system: System) -> None:
    await system.use(4_000_000)
    await system.progress()
    await system.settled()
    async with system.database.transaction() as tx:
        await rows.save_usage(tx, [late_row(2_000_000)])
        final = (await system.finalize()).json()
        assert final["total"] == "1", "it could not see the row"
        await invoices.allocate_ids(tx, {(MINE, OCTOBER)})
        await corrections.mark_late(tx, {(MINE, OCTOBER)})
    assert figures(await system.draft(month="2024-11")) == [("correction", 2_000_000, "0.5")]


@on_postgres
async def test_a_finalization_waits_for_rows_that_are_being_written(system: System) -> None:
    await system.use(4_000_000)
    await system.progress()
    await system.settled()
    async with system.database.transaction() as tx:
        await rows.save_usage(tx, [late_row(2_000_000)])
        await invoices.allocate_ids(tx, {(MINE, OCTOBER)})
        await corrections.mark_late(tx, {(MINE, OCTOBER)})
        finalizing = asyncio.ensure_future(system.finalize())

        async def waits() -> bool | None:
            async with system.database.read() as other:
                query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                return bool(await other.scalar(query)) or None

        await eventually(waits, "the finalization waits", seconds=10)
    final = (await finalizing).json()
    assert final["total"] == "1.5", "and then it counts them"
    assert await late_months(system) == []
