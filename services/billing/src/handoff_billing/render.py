"""Invoices as others read them: CSV. Pure."""

import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from handoff_billing.money import shown

CSV_COLUMNS: Final = (
    "invoice_id",
    "invoice_number",
    "status",
    "customer_id",
    "customer_name",
    "period_start",
    "period_end",
    "line",
    "kind",
    "description",
    "product",
    "region",
    "raw_quantity",
    "raw_unit",
    "websocket_raw_quantity",
    "quantity",
    "unit",
    "model",
    "unit_price",
    "exact",
    "amount",
    "currency",
    "coupon_code",
    "corrects_invoice",
    "corrects_period_start",
    "corrects_kind",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def invoice_csv(
    head: Mapping[str, str], lines: Sequence[Mapping[str, Any]], *, currency: str, exponent: int
) -> str:
    """One row per line, no total row: `amount` adds up to the invoice's total.

    head: the first seven columns. lines: as `invoice.line_document` has them.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for line in lines:
        row = {name: line.get(name) for name in CSV_COLUMNS}
        row |= {name: _harmless(value) for name, value in head.items()}
        corrects = line.get("corrects") or {}
        row |= {f"corrects_{name}": value for name, value in corrects.items()}
        row |= {
            "line": str(line["number"]),
            "description": _harmless(line["description"]),
            "region": _harmless(line["region"]),
            "coupon_code": _harmless(line["coupon_code"] or ""),
            "amount": shown(Decimal(line["amount"]), exponent),
            "currency": currency,
        }
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    return out.getvalue()


def _harmless(value: str) -> str:
    """Text that a spreadsheet will not take for a formula."""
    return f"'{value}" if value.startswith(_FORMULA) else value
