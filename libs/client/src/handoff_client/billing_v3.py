"""`/billing/v3`: invoices and usage in the classic shape. Its JSON numbers are read as decimals,
digit by digit."""

from datetime import date
from decimal import Decimal

from handoff_client.answer import Answer, Instant, json_of, listing_v3
from handoff_client.call import Call, Listing, Reply, call


class LineItem(Answer, frozen=True, kw_only=True):
    """rate: None where a line has several prices. credit_coupon_code: "" where there is none; None
    in month-to-date."""

    description: str
    amount: Decimal
    rate: Decimal | None = None
    units: Decimal
    product_name: str
    product_group: str
    product_line: str
    region: str
    usage_type: str
    credit_coupon_code: str | None = None


class MonthToDate(Answer, frozen=True, kw_only=True):
    """The current month's draft. billing_end_date: its last second."""

    customer_id: str
    invoice_id: str
    billing_start_date: Instant
    billing_end_date: Instant
    currency_code: str
    monthly_transaction_amount: Decimal
    transaction_line_items: tuple[LineItem, ...]


class InvoiceV3(MonthToDate, frozen=True, kw_only=True):
    """A final invoice."""

    invoice_posted_on: Instant
    statement_number: str


class UsageMetric(Answer, frozen=True, kw_only=True):
    """quantity: in priced units; raw_quantity: in minutes or bytes. last_updated_at: up to when
    metering vouches for it, None before the first time."""

    month: str
    usage_type: str
    name: str
    region: str
    unit: str
    quantity: Decimal
    raw_quantity: int
    product_id: str
    last_updated_at: Instant | None = None


class _UsageMetrics(Answer, frozen=True, kw_only=True):
    data: tuple[UsageMetric, ...]


def month_to_date(*, customer_id: str | None = None) -> Call[MonthToDate]:
    """Rated from the usage of now. customer_id: operators name one."""
    query = {"customer_id": customer_id}
    return call("GET", "/billing/v3/invoices/month-to-date", json_of(MonthToDate), query=query)


def listing(
    *,
    customer_id: str | None = None,
    billing_start_date: date | None = None,
    billing_end_date: date | None = None,
    limit: int | None = None,
) -> Listing[InvoiceV3]:
    """Final invoices, newest first, of months within the dates. customer_id: operators name one."""
    return listing_v3(
        "/billing/v3/invoices",
        InvoiceV3,
        query={
            "customer_id": customer_id,
            "billing_start_date": None
            if billing_start_date is None
            else f"{billing_start_date:%Y-%m-%d}",
            "billing_end_date": None
            if billing_end_date is None
            else f"{billing_end_date:%Y-%m-%d}",
            "limit": limit,
        },
    )


def get(invoice_id: str) -> Call[InvoiceV3]:
    """A final invoice; NotFound for a draft."""
    template = "/billing/v3/invoices/{invoice_id}"
    return call("GET", template, json_of(InvoiceV3), invoice_id=invoice_id)


def usage_metrics(
    *,
    customer_id: str | None = None,
    start_month: str | None = None,
    end_month: str | None = None,
) -> Call[tuple[UsageMetric, ...]]:
    """Per month, product and region; of the current month where none is named. Months as
    `2026-11`, at most 24."""
    read = json_of(_UsageMetrics)

    def inside(reply: Reply) -> tuple[UsageMetric, ...]:
        return read(reply).data

    query = {"customer_id": customer_id, "start_month": start_month, "end_month": end_month}
    return call("GET", "/billing/v3/usage-metrics", inside, query=query)
