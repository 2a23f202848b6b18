"""Price books, for operators: their versions, one version as tables, a new version as JSON."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from handoff_client import BadArgument, Conflict, Invalid, prices
from handoff_client.prices import Price, PriceBook
from handoff_common.access import Permission
from handoff_console.attempts import said
from handoff_console.context import Refused, Visit, page

TITLES = {
    "connection_minutes": ("Connection time", "per million minutes"),
    "delivery_bandwidth": ("Delivery bandwidth", "per GB of 10⁹ bytes"),
}
MODELS = {
    "per_unit": "every unit the same",
    "graduated": "each tier's units at its price",
    "volume": "all units at the price of the tier reached",
    "package": "whole packages",
}


class Band(NamedTuple):
    """What units from `above` (not included) to `up_to` cost, each or together."""

    which: str
    above: Decimal
    up_to: Decimal | None
    price: Decimal | None


async def listed(visit: Visit) -> Response:
    found = [one async for one in visit.api.items(prices.books())]
    books: dict[str, list[PriceBook]] = {}
    for one in sorted(found, key=lambda book: (book.price_book_id, -book.version)):
        books.setdefault(one.price_book_id, []).append(one)
    now = datetime.fromtimestamp(visit.console.clock.now_ms() // 1_000, UTC)
    return visit.render("price_books.html", books=books, this_month=f"{now:%Y-%m}")


async def version(visit: Visit) -> Response:
    book = await _book(visit)
    return visit.render("price_book.html", book=book, bands=bands, titles=TITLES, models=MODELS)


async def _book(visit: Visit) -> PriceBook:
    book_id, number = (visit.request.path_params[name] for name in ("book_id", "version"))
    found = await visit.api.page(prices.book_versions(book_id))
    book = next((one for one in found.items if one.version == number), None)
    if book is None:
        raise Refused(404, "No such version", f"The price book has no version {number}.")
    return book


def bands(price: Price) -> Sequence[Band]:
    """A price from the first unit to the last."""
    if price.model == "package":
        size = price.package_size or Decimal(0)
        return (Band("package", Decimal(0), size, price.package_price),)
    if not price.tiers:
        return (Band("unit", Decimal(0), None, price.unit_price),)
    above, found = Decimal(0), []
    for tier in price.tiers:
        found.append(Band("unit", above, tier.up_to, tier.unit_price))
        above = above if tier.up_to is None else tier.up_to
    return tuple(found)


async def new(visit: Visit) -> Response:
    """Begins with the version that the address names, else with a small example."""
    query = visit.request.query_params
    text = EXAMPLE
    if "book" in query and query.get("version", "").isdigit():
        found = await visit.api.page(prices.book_versions(query["book"]))
        text = next(
            (document_of(one) for one in found.items if str(one.version) == query["version"]), text
        )
    return visit.render("price_book_new.html", document=text, errors=(), error="")


async def add(visit: Visit) -> Response:
    text = visit.form.get("document", "").replace("\r\n", "\n")
    try:
        document = read(text)
        made = await visit.api.run(prices.add_book(document))
    except (NotJson, BadArgument) as error:
        return _refused(visit, text, 422, str(error), {})
    except (Invalid, Conflict) as error:
        errors = {one.property: one.reason for one in error.errors}
        return _refused(visit, text, error.status, "" if errors else said(error), errors)
    return visit.go(
        f"/price-books/{made.price_book_id}/versions/{made.version}",
        flash=f"Version {made.version} is in force from {made.effective_from} on.",
    )


def _refused(
    visit: Visit, text: str, status: int, error: str, errors: Mapping[str, str]
) -> Response:
    return visit.render(
        "price_book_new.html",
        status=status,
        document=text,
        error=error,
        errors=[(name, reason) for name, reason in errors.items()],
    )


class NotJson(ValueError):
    """Says where the text stops being JSON."""


def read(text: str) -> dict[str, Any]:
    """Raises NotJson."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"Line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise NotJson(f"Not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise NotJson("A price book is a JSON object: { … }.")
    return value


def document_of(book: PriceBook) -> str:
    """A version as it may be uploaded again: without its number, which is given to it."""
    document = msgspec.to_builtins(book, builtin_types=(Decimal,))
    document.pop("version", None)
    return json.dumps(_without_nulls(document), indent=2, ensure_ascii=False, default=_text)


def _without_nulls(value: Any) -> Any:
    """`up_to` keeps its null: it marks the last tier."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(inner)
            for key, inner in value.items()
            if inner is not None or key == "up_to"
        }
    if isinstance(value, list | tuple):
        return [_without_nulls(inner) for inner in value]
    return value


def _text(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


EXAMPLE = """{
  "price_book_id": "standard",
  "name": "Standard",
  "effective_from": "2027-01",
  "currency": {"code": "USD", "exponent": 2},
  "prices": {
    "connection_minutes": {
      "*": {
        "model": "graduated",
        "tiers": [
          {"up_to": "10", "unit_price": "0.30"},
          {"up_to": null, "unit_price": "0.25"}
        ]
      }
    },
    "delivery_bandwidth": {
      "*": {"model": "per_unit", "unit_price": "0.08"}
    }
  }
}
"""

ROUTES = (
    Route("/price-books", page(Permission.OPERATE, listed)),
    Route("/price-books", page(Permission.OPERATE, add), methods=["POST"]),
    Route("/new-price-book", page(Permission.OPERATE, new)),
    Route("/price-books/{book_id}/versions/{version:count}", page(Permission.OPERATE, version)),
)
