"""`/v1/customers/{id}/forecast` and `…/costs`: what a month will come to, and what each service has
in it. Read leniently: what is not said is None."""

from decimal import Decimal

from handoff_client.answer import Answer, Instant, json_of
from handoff_client.call import Call, call


class Figures(Answer, frozen=True, kw_only=True):
    """websocket_bytes: sent by the edge, to clients and to origins. delivery_bytes: of other
    systems. amount: the invoice's total; None where no prices are in force."""

    minutes: int | None = None
    websocket_bytes: int | None = None
    delivery_bytes: int | None = None
    amount: Decimal | None = None


class Forecast(Answer, frozen=True, kw_only=True):
    """so_far: the month's draft. expected: its invoice as it will be if usage goes on. method: how
    that was found. through: up to which hours are complete."""

    customer_id: str
    month: str
    currency: str | None = None
    so_far: Figures = Figures()
    expected: Figures = Figures()
    method: str | None = None
    through: Instant | None = None


class ServiceCost(Answer, frozen=True, kw_only=True):
    """amount: the service's part of the lines for connection time and bandwidth."""

    service_id: str
    minutes: int
    websocket_bytes: int
    amount: Decimal | None = None


class UnassignedPart(Answer, frozen=True, kw_only=True):
    """kind: `delivery`, or the kind of the invoice's lines."""

    kind: str
    amount: Decimal


class Unassigned(Answer, frozen=True, kw_only=True):
    """What no service has caused alone."""

    delivery_bytes: int | None = None
    amount: Decimal | None = None
    parts: tuple[UnassignedPart, ...] = ()


class Costs(Answer, frozen=True, kw_only=True):
    """The amounts of `data` and `unassigned` add up to `total`, the invoice's."""

    customer_id: str
    month: str
    status: str | None = None
    invoice_number: str | None = None
    currency: str | None = None
    data: tuple[ServiceCost, ...]
    unassigned: Unassigned = Unassigned()
    total: Decimal | None = None


def forecast(customer_id: str, *, month: str | None = None) -> Call[Forecast]:
    """What a month has come to, and what it is expected to end with; the current one where none is
    named."""
    template = "/v1/customers/{customer_id}/forecast"
    query = {"month": month}
    return call("GET", template, json_of(Forecast), query=query, customer_id=customer_id)


def of_customer(customer_id: str, *, month: str | None = None) -> Call[Costs]:
    """A month's invoice shared out over the services; the current one where none is named."""
    template = "/v1/customers/{customer_id}/costs"
    query = {"month": month}
    return call("GET", template, json_of(Costs), query=query, customer_id=customer_id)
