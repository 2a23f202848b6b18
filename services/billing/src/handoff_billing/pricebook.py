"""Price books: what a unit costs, per product and billing region. Pure.

A book has versions; each is effective from the start of a UTC month until the next one is. A
version is an immutable value: `parse` reads it from JSON and checks all of it, `document` writes it
back, and `parse(document(book)) == book`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from handoff_billing.fields import Fields
from handoff_billing.instants import month_text
from handoff_billing.money import text

REGIONS: Final = (
    "africa_std",
    "anzac",
    "asia",
    "asia_india",
    "asia_southkorea",
    "europe",
    "latam",
    "mexico",
    "saudi_arabia",
    "southamerica_std",
    "usa",
)
"""Billing regions."""

DEFAULT_REGION: Final = "*"
"""The entry for every region that has none of its own. Each product has it, so that no usage can be
without a price, whatever region an edge names."""

MAX_TIERS = 100
IDENTIFIER: Final = "1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit"
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Product:
    """`unit` is what a price is for: `10**power` of the counted `raw_unit`."""

    name: str
    title: str
    unit: str
    raw_unit: str
    power: int


MINUTES: Final = Product(
    "connection_minutes", "WebSocket connection time", "million minutes", "minutes", 6
)
BANDWIDTH: Final = Product("delivery_bandwidth", "Delivery bandwidth", "GB", "bytes", 9)
PRODUCTS: Final[Mapping[str, Product]] = {p.name: p for p in (MINUTES, BANDWIDTH)}


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Every unit costs the same."""

    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Tier:
    """Units above the tier before, up to and including `up_to` (None: all further ones)."""

    up_to: Decimal | None
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Graduated:
    """Each tier's units cost that tier's price."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """All units cost the price of the tier that the whole quantity falls into."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """Sold in whole packages of `size` units; a begun one is owed."""

    size: Decimal
    package_price: Decimal


Price = PerUnit | Graduated | Volume | Package

MODELS: Final[Mapping[type[Price], str]] = {
    PerUnit: "per_unit",
    Graduated: "graduated",
    Volume: "volume",
    Package: "package",
}


@dataclass(frozen=True, slots=True)
class Currency:
    """`exponent`: decimals of an amount (USD 2, JPY 0)."""

    code: str
    exponent: int


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One version of a book. prices: product → billing region or "*" → price."""

    price_book_id: str
    version: int
    name: str
    currency: Currency
    effective_ms: int
    prices: Mapping[str, Mapping[str, Price]]

    def price(self, product: Product, region: str) -> Price:
        """The price of the region's usage; total, since every product has a default entry."""
        entries = self.prices[product.name]
        return entries.get(region) or entries[DEFAULT_REGION]


def is_identifier(text: str) -> bool:
    """Whether a price book may have this id."""
    return bool(_IDENTIFIER.fullmatch(text))


def parse(value: object) -> PriceBook:
    """A price book from decoded JSON; `version` is 1 where it is left out.

    Raises PriceBookInvalid, which names every wrong field, its value and what is allowed.
    """
    fields = Fields(value)
    book_id = fields.text("price_book_id", longest=64, allowed=IDENTIFIER, test=is_identifier)
    version = fields.integer("version", 1, 2**31 - 1, default=1)
    name = fields.text("name", longest=200)
    effective_ms = fields.month("effective_from")
    currency = _currency(fields)
    prices = _prices(fields)
    fields.done()
    if (
        book_id is None
        or version is None
        or name is None
        or effective_ms is None
        or currency is None
        or prices is None
    ):
        return fields.require(None)
    return fields.require(PriceBook(book_id, version, name, currency, effective_ms, prices))


def document(book: PriceBook) -> dict[str, Any]:
    """The book as JSON values: what `parse` reads, and what an invoice holds by value."""
    return {
        "price_book_id": book.price_book_id,
        "version": book.version,
        "name": book.name,
        "effective_from": month_text(book.effective_ms),
        "currency": {"code": book.currency.code, "exponent": book.currency.exponent},
        "prices": {
            product: {region: _price_document(price) for region, price in sorted(entries.items())}
            for product, entries in sorted(book.prices.items())
        },
    }


def in_force(versions: Sequence[PriceBook], month_ms: int) -> PriceBook | None:
    """The version that prices the month: the one effective last, and of those the newest."""
    begun = [book for book in versions if book.effective_ms <= month_ms]
    return max(begun, key=lambda book: (book.effective_ms, book.version), default=None)


def _currency(fields: Fields) -> Currency | None:
    inner = fields.nested("currency", "an object with code and exponent")
    if inner is None:
        return None
    code = inner.text(
        "code",
        longest=3,
        allowed="an ISO 4217 code such as 'USD'",
        test=lambda given: bool(_CURRENCY.fullmatch(given)),
    )
    exponent = inner.integer("exponent", 0, 4)
    inner.done()
    return None if code is None or exponent is None else Currency(code, exponent)


def _prices(fields: Fields) -> dict[str, dict[str, Price]] | None:
    products = fields.nested("prices", "an object of " + " and ".join(PRODUCTS))
    if products is None:
        return None
    prices: dict[str, dict[str, Price]] = {}
    for product in PRODUCTS:
        regions = products.nested(product, "an object of prices by region, with '*' for the rest")
        if regions is not None and regions.is_object:
            prices[product] = _regions(regions)
    products.done()
    return prices


def _regions(regions: Fields) -> dict[str, Price]:
    entries: dict[str, Price] = {}
    if DEFAULT_REGION not in regions.names():
        regions.missing(DEFAULT_REGION, "the price of every region that has none of its own")
    for region in regions.names():
        if region != DEFAULT_REGION and region not in REGIONS:
            regions.take(region, "", optional=True)
            allowed = ", ".join((DEFAULT_REGION, *REGIONS))
            regions.wrong(region, region, f"a billing region; allowed: {allowed}")
            continue
        inner = regions.nested(region, "a price")
        price = None if inner is None else _price(inner)
        if price is not None:
            entries[region] = price
    return entries


def _price(fields: Fields) -> Price | None:
    if not fields.is_object:
        return None
    model = fields.choice("model", MODELS.values())
    price: Price | None = None
    if model == "per_unit":
        unit_price = fields.decimal("unit_price")
        price = None if unit_price is None else PerUnit(unit_price)
    elif model in ("graduated", "volume"):
        tiers = _tiers(fields)
        if tiers is not None:
            price = Graduated(tiers) if model == "graduated" else Volume(tiers)
    elif model == "package":
        size = fields.decimal("package_size", positive=True)
        package_price = fields.decimal("package_price")
        if size is not None and package_price is not None:
            price = Package(size, package_price)
    else:
        # Without a model there is no telling which other fields belong.
        for name in fields.names():
            fields.take(name, "", optional=True)
    fields.done()
    return price


def _tiers(fields: Fields) -> tuple[Tier, ...] | None:
    allowed = f"a list of 1 to {MAX_TIERS} tiers"
    given = fields.take("tiers", allowed)
    if given is None:
        return None
    if (
        not isinstance(given, Sequence)
        or isinstance(given, str)
        or not 1 <= len(given) <= MAX_TIERS
    ):
        fields.wrong("tiers", given, allowed)
        return None
    tiers: list[Tier] = []
    before = Decimal(0)
    for index, one in enumerate(given):
        tier = fields.inner(f"tiers.{index}", one)
        last = index == len(given) - 1
        up_to = tier.decimal("up_to", positive=True, optional=True) if tier.is_object else None
        unit_price = tier.decimal("unit_price") if tier.is_object else None
        tier.done()
        if last and up_to is not None:
            tier.wrong("up_to", text(up_to), "null, as the last tier has no end")
        elif not last and tier.is_object and (up_to is None or up_to <= before):
            shown = None if up_to is None else text(up_to)
            tier.wrong("up_to", shown, f"a decimal string above {text(before)}")
        if unit_price is None:
            continue
        tiers.append(Tier(up_to, unit_price))
        before = up_to or before
    return tuple(tiers)


def _price_document(price: Price) -> dict[str, Any]:
    match price:
        case PerUnit(unit_price):
            return {"model": "per_unit", "unit_price": text(unit_price)}
        case Package(size, package_price):
            return {
                "model": "package",
                "package_size": text(size),
                "package_price": text(package_price),
            }
    return {
        "model": MODELS[type(price)],
        "tiers": [
            {
                "up_to": None if tier.up_to is None else text(tier.up_to),
                "unit_price": text(tier.unit_price),
            }
            for tier in price.tiers
        ],
    }
