"""From usage rows to a final invoice: what holds it, what it is, and that it stays so."""

import asyncio
import csv
import io
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from handoff_billing.settings import BillingSettings
from handoff_billing.usage import Totals
from handoff_billing.verify import check_links, verify
from handoff_common import codec
from handoff_common.events import Counters, InvoiceData
from handoff_common.instants import from_ms
from handoff_common.log import Message, Partition
from handoff_common.minutes import HOUR_MS
from handoff_common.settings import load
from handoff_common.topics import INVOICES, USAGE
from support.billing_system import MINE, NOVEMBER, OCTOBER, THEIRS, System
from support.databases import Engine


async def published(system: System) -> list[InvoiceData]:
    """The invoices in the log, by number."""
    found = []
    for number, (first, end) in (await system.log.ends(INVOICES.name)).items():
        if end > first:
            records, _ = await system.log.records(Partition(INVOICES.name, number), first, 1000)
            found += [codec.decode(INVOICES.name, record.value).data for record in records]
    return sorted(found, key=lambda data: data.number)


async def month(system: System, minutes: int = 1_234_567) -> None:
    await system.use(minutes, resp_body_bytes=10**9, opened=2, closed=2)
    await system.progress()
    await system.settled()


async def test_a_month_becomes_a_final_invoice(system: System) -> None:
    await month(system)
    draft = await system.draft()
    assert (draft["status"], draft["number"], draft["holds"]) == ("draft", None, [])
    answer = await system.finalize()
    assert answer.status_code == 200, answer.text
    final = answer.json()
    assert final["status"] == "final"
    assert final["invoice_id"] == draft["invoice_id"]
    assert final["invoice_id"].isdigit()
    assert final["number"] == "INV-2024-000001"
    assert final["total"] == "0.43"
    assert final["minutes"] == 1_234_567
    assert [(x["product"], x["exact"], x["amount"]) for x in final["lines"]] == [
        ("connection_minutes", "0.30864175", "0.31"),
        ("delivery_bandwidth", "0.12", "0.12"),
    ]
    assert final["period_start"] == "2024-10-01T00:00:00Z"
    assert final["period_end"] == "2024-11-01T00:00:00Z"
    assert final["customer_name"] == "mine ltd"
    assert final["late_usage"] == {"amount": "0", "lines": [], "next_month": "2024-11"}
    assert (final["kind"], final["corrected_by"]) == ("month", [])
    assert final["final"]["finalized_by"] == "operator@mine"
    assert final["final"]["forced"] is None
    assert final["final"]["positions"] == {"0": 1000, "1": 1000}
    assert await system.get(f"/v1/invoices/{final['invoice_id']}") == final


async def test_finalizing_again_gives_the_same_invoice(system: System) -> None:
    await month(system)
    first, second = await system.finalize(), await system.finalize()
    assert first.json() == second.json()
    assert len(await published(system)) == 1


async def test_what_is_published_verifies_from_the_usage(system: System) -> None:
    await month(system)
    await system.finalize()
    [data] = await published(system)
    usage = {
        (f"{MINE}-chat", "europe", OCTOBER): Totals(
            1_234_567, Counters(resp_body_bytes=10**9), opened=2, closed=2
        )
    }
    assert verify(data.content, usage).ok
    assert check_links([data]) is None
    difference = verify(data.content, {}).difference
    assert difference is not None
    assert difference.path == "usage.rows.0"
    assert data.through == {"0": from_ms(NOVEMBER), "1": from_ms(NOVEMBER)}


async def test_each_hold_is_listed_and_then_gone(system: System) -> None:
    await system.use(5, offset=70)
    await system.progress(
        position=70,
        through=from_ms(NOVEMBER - 1),
        open_orphans=2,
        parked={MINE: 1, "": 2, THEIRS: 5},
        difference=3,
    )
    await system.settled()
    system.clock._ns = (NOVEMBER + HOUR_MS) * 1_000_000
    answer = await system.finalize()
    assert answer.status_code == 409
    problem = answer.json()
    assert problem["type"] == "urn:handoff:error:invoice_held"
    expected = {
        "grace",
        "progress_behind",
        "rows_beyond_progress",
        "open_orphans",
        "parked",
        "difference",
    }
    assert {e["property"] for e in problem["errors"]} == expected
    assert {hold["code"] for hold in (await system.draft())["holds"]} == expected
    assert await published(system) == []

    await system.progress()
    await system.settled()
    system.clock.advance(seconds=86_400)
    assert (await system.draft())["holds"] == []
    assert (await system.finalize()).status_code == 200


async def test_without_a_word_from_metering_nothing_is_final(system: System) -> None:
    answer = await system.finalize()
    assert answer.status_code == 409
    assert [e["property"] for e in answer.json()["errors"]] == ["no_progress"]


async def test_an_unreadable_record_holds_its_customer_only(system: System) -> None:
    await month(system)
    raw = b'{"type":"handoff.usage.totals.v1","data":{"customer_id":"mine","minutes":-1}}'
    await system.log.append(USAGE.name, [Message("bad", raw)])
    await system.settled()
    answer = await system.finalize()
    assert [e["property"] for e in answer.json()["errors"]] == ["usage_unreadable"]
    assert (await system.finalize(THEIRS)).status_code == 200


async def test_a_rebuild_under_way_holds(system: System) -> None:
    await month(system)
    await system.use(7, version=(2, 1))
    await system.settled()
    answer = await system.finalize()
    assert [e["property"] for e in answer.json()["errors"]] == ["rows_of_another_generation"]


async def test_a_finished_rebuild_does_not_hold(system: System) -> None:
    await system.use(0, hour=5, version=(1, 1))
    await system.use(7, hour=6, version=(2, 1))
    await system.progress(generation=2)
    await system.settled()
    assert (await system.draft())["holds"] == []


async def test_force_passes_over_holds_and_keeps_the_reason(system: System) -> None:
    await system.use(4_000_000)
    await system.settled()
    answer = await system.finalize(force=True, reason="metering is gone for good")
    assert answer.status_code == 200, answer.text
    forced = answer.json()["final"]["forced"]
    assert forced["reason"] == "metering is gone for good"
    assert [hold["code"] for hold in forced["overridden"]] == ["no_progress"]
    [data] = await published(system)
    assert data.forced_reason == "metering is gone for good"


WRONG_FORCE: list[tuple[dict[str, Any], str]] = [
    ({"force": True}, "reason"),
    ({"force": True, "reason": "  "}, "reason"),
    ({"reason": "because"}, "force"),
    ({"force": "perhaps"}, "force"),
    ({"colour": "red"}, "colour"),
]


async def test_force_needs_a_reason(system: System) -> None:
    for body, place in WRONG_FORCE:
        answer = await system.finalize(**body)
        assert answer.status_code == 422, body
        assert [e["property"] for e in answer.json()["errors"]] == [place]


async def test_a_month_that_is_not_over_cannot_be_forced(system: System) -> None:
    await system.progress()
    await system.settled()
    answer = await system.finalize(month="2024-11", force=True, reason="in a hurry")
    assert answer.status_code == 409
    assert "month_open" in [e["property"] for e in answer.json()["errors"]]
    assert "not even by force" in answer.json()["detail"]


async def test_a_customer_without_usage_gets_an_invoice_of_zero(system: System) -> None:
    await system.progress()
    await system.settled()
    final = (await system.finalize()).json()
    assert (final["total"], final["lines"], final["number"]) == ("0", [], "INV-2024-000001")


async def test_late_usage_never_changes_a_final_invoice_and_is_shown(system: System) -> None:
    await month(system, minutes=4_000_000)
    final = (await system.finalize()).json()
    await system.use(2_000_000, hour=3)
    await system.settled()
    now = await system.get(f"/v1/invoices/{final['invoice_id']}")
    assert now["late_usage"] == {
        "amount": "0.5",
        "lines": [
            {
                "kind": "usage",
                "product": "connection_minutes",
                "region": "europe",
                "raw_quantity": 2_000_000,
                "amount": "0.5",
            }
        ],
        "next_month": "2024-11",
    }
    assert {**now, "late_usage": None} == {**final, "late_usage": None}
    assert (await system.finalize()).json()["total"] == final["total"]


async def test_numbers_have_no_gaps_and_the_chain_is_whole(system: System) -> None:
    months = ["2024-05", "2024-06", "2024-07", "2024-08", "2024-09", "2024-10"]
    await system.progress()
    await system.settled()
    calls = [
        system.finalize(customer, month=one)
        for one in months
        for customer in (MINE, THEIRS)
        for _ in range(2)
    ]
    held = [system.finalize(MINE, month="2024-11") for _ in range(3)]
    answers = await asyncio.gather(*calls, *held)
    finals = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(finals) == 24
    numbers = {(f["customer_id"], f["period_start"]): f["number"] for f in finals}
    assert sorted(numbers.values()) == [f"INV-2024-{n:06d}" for n in range(1, 13)]
    every = await published(system)
    assert [data.number for data in every] == sorted(numbers.values())
    assert check_links(every) is None
    assert every[0].previous_chain_hash == "0" * 64


async def test_each_year_counts_for_itself_and_the_chain_goes_on(system: System) -> None:
    await system.progress()
    await system.settled()
    await system.finalize(month="2024-09")
    system.clock.advance(seconds=60 * 86_400)
    final = (await system.finalize(month="2024-10")).json()
    assert final["number"] == "INV-2025-000001"
    assert check_links(await published(system)) is None


async def test_a_restart_goes_on_where_it_was(system: System) -> None:
    await month(system)
    first = (await system.finalize()).json()
    await system.stop()
    await system.start()
    assert await system.get(f"/v1/invoices/{first['invoice_id']}") == first
    second = (await system.finalize(THEIRS)).json()
    assert second["number"] == "INV-2024-000002"
    assert second["final"]["previous_chain_hash"] == first["final"]["chain_hash"]


REFUSED = [
    "UPDATE invoices SET total = '0'",
    "DELETE FROM invoices",
    "INSERT OR REPLACE INTO invoices SELECT * FROM invoices",
    "UPDATE price_books SET document = '{}'",
    "DELETE FROM price_books",
    "INSERT OR REPLACE INTO price_books SELECT * FROM price_books",
    "UPDATE terms SET effective_ms = 0",
    "DELETE FROM terms",
    "INSERT OR REPLACE INTO terms SELECT * FROM terms",
]


async def test_the_database_itself_refuses_changes(system: System, engine: Engine) -> None:
    await month(system)
    final = (await system.finalize()).json()
    # Only SQLite has REPLACE, which there deletes without firing the triggers of a delete.
    refused = [s for s in REFUSED if engine == "sqlite" or "REPLACE" not in s]
    for statement in refused:
        with pytest.raises(DBAPIError, match="append-only"):
            async with system.database.transaction() as tx:
                await tx.execute(text(statement))
    assert await system.get(f"/v1/invoices/{final['invoice_id']}") == final


async def test_a_held_finalization_leaves_no_trace(system: System) -> None:
    await system.finalize()
    async with system.database.read() as tx:
        for table in ("invoices", "counters", "series", "outbox"):
            count = await tx.scalar(text(f"SELECT count(*) FROM {table}"))
            assert count == 0, table


async def test_the_proof_bears_the_document_and_the_rows_behind_each_line(system: System) -> None:
    await system.use(5, hour=1, resp_body_bytes=10)
    await system.use(7, hour=2, slice_=1)
    await system.use(9, region="usa")
    await month(system, minutes=3)
    final = (await system.finalize()).json()
    answer = await system.call("GET", f"/v1/invoices/{final['invoice_id']}/proof")
    proof = answer.json()
    [data] = await published(system)
    assert msgspec.json.encode(msgspec.Raw(data.content.encode())) in answer.content
    assert proof["content_hash"] == data.content_hash
    assert proof["chain_hash"] == data.chain_hash
    assert proof["link"]["positions"] == {"0": "1000", "1": "1000"}
    by_number = {line["number"]: line for line in proof["lines"]}
    for line in final["lines"]:
        behind = by_number[line["number"]]
        assert behind["connections"] == line["connections"]
        if line["product"] == "connection_minutes":
            assert sum(row["minutes"] for row in behind["usage"]) == line["raw_quantity"]
        paged: list[Any] = []
        cursor = None
        while True:
            query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
            path = f"/v1/invoices/{final['invoice_id']}/lines/{line['number']}/usage"
            page = await system.get(path, **query)
            paged += [row["usage"] for row in page["data"]]
            cursor = page["meta"]["next_cursor"]
            if cursor is None:
                break
        assert paged == behind["usage"]
    missing = await system.call("GET", f"/v1/invoices/{final['invoice_id']}/lines/99/usage")
    assert missing.status_code == 404


async def test_a_draft_has_no_proof_but_the_rows_of_now(system: System) -> None:
    await month(system)
    draft = await system.draft()
    answer = await system.call("GET", f"/v1/invoices/{draft['invoice_id']}/proof")
    assert (answer.status_code, answer.json()["title"]) == (409, "Not final")
    page = await system.get(f"/v1/invoices/{draft['invoice_id']}/lines/1/usage")
    assert [row["usage"]["minutes"] for row in page["data"]] == [1_234_567]


async def test_the_csv_adds_up_to_the_invoice(system: System) -> None:
    await month(system)
    final = (await system.finalize()).json()
    answer = await system.call("GET", f"/v1/invoices/{final['invoice_id']}.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "INV-2024-000001.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(final["total"])
    assert (rows[0]["amount"], rows[0]["exact"]) == ("0.31", "0.30864175")
    assert {row["invoice_number"] for row in rows} == {"INV-2024-000001"}


def test_settings_are_named_and_bounded() -> None:
    given = load(BillingSettings, {"HANDOFF_INVOICE_GRACE_S": "0", "HANDOFF_INVOICE_SERIES": "AB"})
    assert (given.invoice_grace_s, given.invoice_series) == (0, "AB")
