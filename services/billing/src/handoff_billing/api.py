"""`/v1/invoices`: drafts, final invoices, what stands behind them, and making them final."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response

from handoff_billing import schemas as s
from handoff_billing import views
from handoff_billing.callers import (
    Limit,
    MonthQuery,
    Operator,
    Reader,
    actor,
    known,
    month_given,
    visible,
)
from handoff_billing.directory import Directory
from handoff_billing.errors import not_final
from handoff_billing.issuing import Issuer
from handoff_billing.ledger import Ledger, final_statement
from handoff_billing.proof import (
    connections_query,
    delivery_row,
    row_connections,
    rows_in,
    usage_row,
)
from handoff_billing.render import invoice_csv
from handoff_billing.store.invoices import Final, Month
from handoff_common.access import owner_of
from handoff_common.errors import FieldError, invalid, not_found
from handoff_common.http import Page, decode_cursor, encode_cursor


class Csv(PlainTextResponse):
    media_type = "text/csv"


def routes(ledger: Ledger, issuer: Issuer, directory: Directory) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/invoices", response_model=Page[s.InvoiceSummary])
    async def list_invoices(
        principal: Reader,
        customer_id: str | None = None,
        month: MonthQuery = None,
        before: MonthQuery = None,
        status: Literal["draft", "final"] | None = None,
        limit: Limit = 20,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Drafts and final invoices, newest month first; with `before`, of the months before it."""
        owner = owner_of(principal, customer_id)
        if owner is not None and principal.customer_id is None:
            await known(directory, owner)
        after = None
        if cursor is not None:
            month_of_last, id_of_last = decode_cursor(cursor, [int, int])
            after = (month_of_last, id_of_last)
        months = await ledger.months(
            customer_id=owner,
            month_ms=month_given(month, ledger),
            before_ms=month_given(before, ledger, "before"),
            final=None if status is None else status == "final",
            after=after,
            limit=limit + 1,
        )
        more = months[limit - 1] if len(months) > limit else None
        return {
            "data": [views.summary(await ledger.statement(one)) for one in months[:limit]],
            "meta": {
                "limit": limit,
                "next_cursor": more and encode_cursor(more.place_ms, more.invoice_id),
            },
        }

    @router.get("/invoices/{invoice_id}.csv", response_class=Csv)
    async def get_csv(principal: Reader, invoice_id: str) -> Response:
        """One row per line; the amounts add up to the total."""
        month = await visible(ledger, principal, invoice_id)
        statement = await ledger.statement(month)
        head = views.summary(statement)
        text = invoice_csv(
            {
                "invoice_id": head["invoice_id"],
                "invoice_number": head["number"] or "",
                "status": head["status"],
                "customer_id": head["customer_id"],
                "customer_name": head["customer_name"],
                "period_start": head["period_start"],
                "period_end": head["period_end"],
            },
            statement.lines,
            currency=statement.currency,
            exponent=statement.exponent,
        )
        name = head["number"] or f"draft-{head['invoice_id']}"
        return Csv(
            text,
            headers={"content-disposition": f'attachment; filename="{name}.csv"'},
        )

    @router.get("/invoices/{invoice_id}", response_model=s.InvoiceOut)
    async def get_invoice(principal: Reader, invoice_id: str) -> dict[str, Any]:
        """A draft as of now, with what holds it open; or a final invoice, with what came late."""
        return await shown(await visible(ledger, principal, invoice_id))

    async def shown(month: Month) -> dict[str, Any]:
        statement = await ledger.statement(month)
        if statement.final is None:
            return views.invoice(statement, await issuer.holds(month), None)
        return await shown_final(statement.final)

    async def shown_final(final: Final) -> dict[str, Any]:
        after = None if final.alone else await ledger.aftermath(final)
        return views.invoice(final_statement(final), [], after)

    @router.get(
        "/invoices/{invoice_id}/lines/{number}/usage",
        response_model=Page[s.LineUsageOut],
    )
    async def get_line_usage(
        principal: Reader,
        invoice_id: str,
        number: int,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """The rows that a line counts: per service and hour, each with where its connections are
        listed, then other delivery."""
        month = await visible(ledger, principal, invoice_id)
        lines = (await ledger.statement(month)).lines
        line = next((one for one in lines if one["number"] == number), None)
        if line is None:
            raise not_found("line", str(number))
        usage, delivery = await ledger.line_rows(month, line)
        start = 0 if cursor is None else max(0, decode_cursor(cursor, [int])[0])
        end = start + limit
        page: list[dict[str, Any]] = [
            {
                "kind": "usage",
                "usage": usage_row(key, totals),
                "connections": row_connections(month.customer_id, key),
            }
            for key, totals in usage[start:end]
        ]
        others = slice(max(0, start - len(usage)), max(0, end - len(usage)))
        page += [{"kind": "delivery", "delivery": delivery_row(row)} for row in delivery[others]]
        more = end < len(usage) + len(delivery)
        return {
            "data": page,
            "meta": {"limit": limit, "next_cursor": encode_cursor(end) if more else None},
        }

    @router.get(
        "/invoices/{invoice_id}/proof",
        responses={200: {"model": s.ProofOut}},
        response_class=Response,
    )
    async def get_proof(principal: Reader, invoice_id: str) -> Response:
        """A final invoice's content document, its hashes, and the rows behind each line."""
        month = await visible(ledger, principal, invoice_id)
        final = (await ledger.statement(month)).final
        if final is None:
            raise not_final(invoice_id)
        document = msgspec.json.decode(final.content)
        lines = []
        for line in document["lines"]:
            used, delivered = rows_in(document, line)
            lines.append(
                {
                    "number": line["number"],
                    "connections": connections_query(month.customer_id, month.month_ms, line),
                    "usage": [usage_row(key, totals) for key, totals in used],
                    "delivery": [delivery_row(row) for row in delivered],
                }
            )
        body = {
            "invoice_id": str(final.invoice_id),
            "number": final.number,
            "document": msgspec.Raw(final.content.encode()),
            "content_hash": final.content_hash,
            "link": views.link(final),
            "chain_hash": final.chain_hash,
            "lines": lines,
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    @router.post("/invoices/{invoice_id}/finalize", response_model=s.InvoiceOut)
    async def finalize(
        principal: Operator, invoice_id: str, body: s.FinalizeIn | None = None
    ) -> dict[str, Any]:
        """Make a draft final, or answer with the invoice that is. 409 `invoice_held` lists every
        reason why it cannot be yet; `force` with a `reason` that is kept passes over most."""
        month = await visible(ledger, principal, invoice_id)
        reason = forced_reason(body)
        return await shown_final(
            await issuer.finalize(month, by=actor(principal), forced_reason=reason)
        )

    @router.post("/invoices/{invoice_id}/correct", response_model=s.InvoiceOut)
    async def correct(
        principal: Operator, invoice_id: str, body: s.FinalizeIn | None = None
    ) -> dict[str, Any]:
        """Issue an invoice alone for what came late for a final one, where no next invoice in its
        currency can bear it: 409 `next_invoice` where one can, `nothing_to_correct` where all is
        billed, `invoice_held` as for finalizing. It may be negative: then it is a credit note."""
        month = await visible(ledger, principal, invoice_id)
        reason = forced_reason(body)
        return await shown_final(
            await issuer.correct(month, by=actor(principal), forced_reason=reason)
        )

    return router


def forced_reason(body: s.FinalizeIn | None) -> str | None:
    """The reason for which holds are passed over, None where they are not."""
    asked = body or s.FinalizeIn()
    if asked.force and (asked.reason is None or not asked.reason.strip()):
        raise invalid([FieldError("reason", "is missing; say why this is forced")])
    if asked.reason is not None and not asked.force:
        raise invalid([FieldError("force", "is false; a reason belongs to force: true")])
    return asked.reason
