"""The models of `/v1/customers/{customer_id}/forecast` and `…/costs`.

Money is decimal strings; minutes and bytes are integers. Where no prices are in force for the
month, the price book and every amount are null, as the month's invoice has the hold
`no_price_book`.
"""

from typing import Literal

from pydantic import BaseModel, Field

from handoff_billing.schemas import DecimalText, MonthText


class FiguresOut(BaseModel):
    """websocket_bytes: sent by the edge, to clients and to origins. delivery_bytes: of other teams.
    amount: the invoice's total, with corrections and what is carried."""

    minutes: int
    websocket_bytes: int
    delivery_bytes: int
    amount: DecimalText | None


class ForecastOut(BaseModel):
    """`so_far` is the month's draft, `expected` its invoice as it will be if usage goes on.

    method: `weekly` (the hours left are like those of the last seven days), `mean` (like the mean
    since the first use, where that is less than seven days back), `no_history` (nothing to go by)
    or `complete` (no hours are left). through: up to which hours are complete.
    """

    customer_id: str
    month: MonthText
    currency: str
    price_book_id: str | None
    price_book_version: int | None
    so_far: FiguresOut
    expected: FiguresOut
    method: Literal["weekly", "mean", "no_history", "complete"]
    through: str


class ServiceCostOut(BaseModel):
    """amount: the service's part of the lines for connection time and bandwidth."""

    service_id: str
    minutes: int
    websocket_bytes: int
    amount: DecimalText | None


class UnassignedPartOut(BaseModel):
    kind: str = Field(description="`delivery`, or the kind of the invoice's lines")
    amount: DecimalText


class UnassignedOut(BaseModel):
    """What no service has caused alone. parts: that add up to `amount`."""

    delivery_bytes: int
    amount: DecimalText | None
    parts: list[UnassignedPartOut]


class CostsOut(BaseModel):
    """The amounts of `data` and `unassigned` add up to `total`, the invoice's, exactly. status:
    whether that is final; invoice_number: null where not."""

    customer_id: str
    month: MonthText
    status: Literal["draft", "final"]
    invoice_number: str | None
    currency: str
    price_book_id: str | None
    price_book_version: int | None
    data: list[ServiceCostOut]
    unassigned: UnassignedOut
    total: DecimalText | None
