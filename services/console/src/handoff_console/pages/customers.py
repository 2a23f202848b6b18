"""Customers, for operators: the list, making one, the account, its contracts, its prices."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, Invalid, customers, prices
from handoff_client.customers import Contract
from handoff_client.prices import Pricing, Terms
from handoff_common.access import Permission
from handoff_console.attempts import FRESH, Attempt, BadField, attempt, instant
from handoff_console.context import Visit, page
from handoff_console.filters import field
from handoff_console.sign_on import safe_path

PER_PAGE = 50
ACCOUNT = ("name", "account_type", "billing_email")
CONTRACT = ("starts_at", "ends_at")
TERMS = (
    "price_book_id",
    "effective_from",
    "discount_percent",
    "monthly_minimum",
    "commitment.amount",
    "commitment.overage_rate",
    "coupon.code",
    "coupon.percent",
    "coupon.amount",
)
TYPES = (("paid", "paid"), ("trial", "trial: never entitled to WebSockets"))


async def listed(visit: Visit) -> Response:
    found = await visit.api.page(
        customers.listing(limit=PER_PAGE), visit.request.query_params.get("at")
    )
    now = _now(visit)
    return visit.render(
        "customers.html",
        rows=[(one, contract_state(for_websockets(one.contracts), now)) for one in found.items],
        following=found.next,
        next=safe_path(visit.request.query_params.get("next"), otherwise=""),
    )


def for_websockets(contracts: Sequence[Contract]) -> list[Contract]:
    """Those that entitle to it: a customer may have contracts for other products too."""
    return [one for one in contracts if one.product == "websockets"]


def contract_state(contracts: Sequence[Contract], now: datetime) -> tuple[str, str]:
    """In a few words, and the kind of badge."""
    running = [one for one in contracts if _runs(one, now)]
    if any(one.ends_at is None for one in running):
        return "in force", "ok"
    if running:
        last = max(one.ends_at for one in running if one.ends_at is not None)
        return f"until {last:%Y-%m-%d}", "ok"
    if any(one.starts_at > now for one in contracts):
        return f"from {min(one.starts_at for one in contracts if one.starts_at > now):%Y-%m-%d}", ""
    return ("ended", "warn") if contracts else ("none", "warn")


def _runs(one: Contract, now: datetime) -> bool:
    return one.starts_at <= now and (one.ends_at is None or now < one.ends_at)


async def new(visit: Visit) -> Response:
    return visit.render("customer_new.html", types=TYPES, tried=FRESH)


async def create(visit: Visit) -> Response:
    try:
        made = await visit.api.run(
            customers.create(
                visit.field("name"), _type(visit), billing_email=visit.field("billing_email")
            )
        )
    except (Invalid, Conflict) as error:
        tried = attempt(visit, "account", ACCOUNT, error)
        return visit.render("customer_new.html", status=tried.status, types=TYPES, tried=tried)
    return visit.go(
        f"/customers/{made.id}", flash="Made. It needs a contract before it may use WebSockets."
    )


def _type(visit: Visit) -> Literal["paid", "trial"]:
    return "trial" if visit.field("account_type") == "trial" else "paid"


async def one(visit: Visit) -> Response:
    return await _shown(visit)


async def _shown(visit: Visit, tried: Attempt = FRESH) -> Response:
    held = await visit.api.run(customers.get(_customer_id(visit)).with_headers())
    now = _now(visit)
    return visit.render(
        "customer.html",
        status=tried.status,
        customer=held.value,
        etag=held.etag or "",
        contracts=[(one, contract_state((one,), now)) for one in held.value.contracts],
        running=contract_state(for_websockets(held.value.contracts), now),
        types=TYPES,
        tried=tried,
        today=f"{now:%Y-%m-%dT00:00}",
        end_of=lambda contract: field(contract.ends_at or now),
    )


async def change(visit: Visit) -> Response:
    customer_id = _customer_id(visit)
    try:
        await visit.api.run(
            customers.change(
                customer_id,
                name=visit.field("name"),
                account_type=_type(visit),
                billing_email=visit.field("billing_email"),
                if_match=visit.field("etag") or None,
            )
        )
    except (Invalid, Conflict) as error:
        return await _shown(visit, attempt(visit, "account", ACCOUNT, error))
    return visit.go(f"/customers/{customer_id}", flash="The account is changed.")


async def suspend(visit: Visit) -> Response:
    customer_id, suspended = _customer_id(visit), visit.field("suspended") == "yes"
    await visit.api.run(customers.change(customer_id, suspended=suspended))
    said = "Suspended: nothing is handed off any more." if suspended else "Resumed."
    return visit.go(f"/customers/{customer_id}", flash=said)


async def delete(visit: Visit) -> Response:
    try:
        await visit.api.run(customers.delete(_customer_id(visit)))
    except (Invalid, Conflict) as error:
        return await _shown(visit, attempt(visit, "delete", (), error))
    return visit.go("/customers", flash="The customer is deleted.")


async def add_contract(visit: Visit) -> Response:
    customer_id = _customer_id(visit)
    try:
        starts_at = instant(visit, "starts_at")
        if starts_at is None:
            raise BadField("starts_at", "is missing; as 2026-12-01T00:00")
        await visit.api.run(
            customers.create_contract(customer_id, starts_at, instant(visit, "ends_at"))
        )
    except (Invalid, Conflict, BadField) as error:
        return await _shown(visit, attempt(visit, "contract", CONTRACT, error))
    return visit.go(f"/customers/{customer_id}", flash="The contract is added.")


async def end_contract(visit: Visit) -> Response:
    """At an instant, or never: an empty field makes it open-ended."""
    customer_id, contract_id = _customer_id(visit), visit.request.path_params["contract_id"]
    try:
        await visit.api.run(
            customers.change_contract(customer_id, contract_id, ends_at=instant(visit, "ends_at"))
        )
    except (Invalid, Conflict, BadField) as error:
        return await _shown(visit, attempt(visit, contract_id, ("ends_at",), error))
    return visit.go(f"/customers/{customer_id}", flash="The contract is changed.")


async def pricing(visit: Visit) -> Response:
    return await _pricing(visit)


async def _pricing(visit: Visit, tried: Attempt = FRESH) -> Response:
    customer_id = _customer_id(visit)
    customer, books = await asyncio.gather(
        visit.api.run(customers.get(customer_id)), visit.api.page(prices.books())
    )
    held: Pricing | None = None
    etag = ""
    try:
        received = await visit.api.run(prices.pricing(customer_id).with_headers())
        held, etag = received.value, received.etag or ""
    except Conflict:
        # No prices are in force: that is what the form is for.
        pass
    next_month = f"{_now(visit).replace(day=1) + timedelta(days=32):%Y-%m}"
    return visit.render(
        "customer_pricing.html",
        status=tried.status,
        customer=customer,
        pricing=held,
        etag=etag,
        books=[(name, name) for name in dict.fromkeys(one.price_book_id for one in books.items)],
        next_month=next_month,
        agreed={} if held is None else typed_terms(terms_of_month(held, next_month)),
        tried=tried,
    )


def terms_of_month(pricing: Pricing, month: str) -> Terms:
    """What holds from a month on, if nothing else is agreed: what was agreed last for it or for one
    before it; what is in force where nothing was."""
    agreed = [one for one in pricing.history if one.effective_from <= month]
    # Of equal months the last one that was given holds.
    return max(reversed(agreed), key=lambda one: one.effective_from, default=pricing.terms)


def typed_terms(terms: Terms) -> dict[str, str]:
    """As the form has them; the inverse of `terms_of`, but for when they begin."""
    values: dict[str, Decimal | str | None] = {
        "price_book_id": terms.price_book_id,
        "discount_percent": terms.discount_percent,
        "monthly_minimum": terms.monthly_minimum,
    }
    if terms.commitment is not None:
        values["commitment.amount"] = terms.commitment.amount
        values["commitment.overage_rate"] = terms.commitment.overage_rate
    if terms.coupon is not None:
        values["coupon.code"] = terms.coupon.code
        values["coupon.percent"] = terms.coupon.percent
        values["coupon.amount"] = terms.coupon.amount
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in values.items()
        if value is not None
    }


async def set_terms(visit: Visit) -> Response:
    customer_id = _customer_id(visit)
    try:
        await visit.api.run(
            prices.set_terms(
                customer_id,
                terms_of({name: visit.field(name) for name in TERMS}),
                if_match=visit.field("etag") or None,
            )
        )
    except (Invalid, Conflict) as error:
        return await _pricing(visit, attempt(visit, "terms", TERMS, error))
    return visit.go(f"/customers/{customer_id}/pricing", flash="The terms are agreed.")


def terms_of(typed: Mapping[str, str]) -> dict[str, Any]:
    """As the API takes them: dots nest, and what is empty is left out."""
    terms: dict[str, Any] = {}
    for name, value in typed.items():
        if value:
            group, _, inner = name.rpartition(".")
            (terms.setdefault(group, {}) if group else terms)[inner] = value
    return terms


def _customer_id(visit: Visit) -> str:
    return str(visit.request.path_params["customer_id"])


def _now(visit: Visit) -> datetime:
    return datetime.fromtimestamp(visit.console.clock.now_ms() // 1_000, UTC)


_ONE = "/customers/{customer_id}"
ROUTES = (
    Route("/customers", page(Permission.OPERATE, listed)),
    Route("/customers/new", page(Permission.OPERATE, new)),
    Route("/customers", page(Permission.OPERATE, create), methods=["POST"]),
    Route(_ONE, page(Permission.OPERATE, one)),
    Route(_ONE, page(Permission.OPERATE, change), methods=["POST"]),
    Route(f"{_ONE}/suspension", page(Permission.OPERATE, suspend), methods=["POST"]),
    Route(f"{_ONE}/delete", page(Permission.OPERATE, delete), methods=["POST"]),
    Route(f"{_ONE}/contracts", page(Permission.OPERATE, add_contract), methods=["POST"]),
    Route(
        f"{_ONE}/contracts/{{contract_id}}",
        page(Permission.OPERATE, end_contract),
        methods=["POST"],
    ),
    Route(f"{_ONE}/pricing", page(Permission.OPERATE, pricing)),
    Route(f"{_ONE}/pricing", page(Permission.OPERATE, set_terms), methods=["POST"]),
)
