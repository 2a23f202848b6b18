"""What one connection costs so far. Pure, exact.

An invoice prices a month's minutes per region, not connections, so that a connection's part is its
minutes times the rate that the region's month has reached. With graduated tiers that is the rate of
the tier that minutes are priced at now; with volume tiers that of the whole month; of packages, a
minute's share of one. Discounts, coupons and commitments come after and are not in it.
"""

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import NamedTuple

from handoff_client.prices import Price, PriceBook

PRODUCT = "connection_minutes"
EVERY_REGION = "*"
_POWER = -6
"""A price is for a million minutes."""
_EXACT = Context(prec=60)


class Rates(NamedTuple):
    """minute: region → price of one minute, EVERY_REGION for those that have none of their own.
    tiered: whether it depends on how far the month has come."""

    currency: str
    minute: Mapping[str, Decimal]
    tiered: bool

    def cost(self, region: str, minutes: int) -> Decimal | None:
        """None where the book has no price for it."""
        rate = self.minute.get(region, self.minute.get(EVERY_REGION))
        return None if rate is None else _EXACT.multiply(rate, Decimal(minutes))


def rates_of(book: PriceBook, minutes: Mapping[str, int]) -> Rates:
    """minutes: region → those of the month so far, of all of the customer's services."""
    prices = book.prices.get(PRODUCT, {})
    found: dict[str, Decimal] = {}
    for region in prices.keys() | minutes.keys():
        price = prices.get(region) or prices.get(EVERY_REGION)
        rate = None if price is None else unit_price(price, minutes.get(region, 0))
        if rate is not None:
            found[region] = rate.scaleb(_POWER, _EXACT)
    tiered = any(price.model in ("graduated", "volume") for price in prices.values())
    return Rates(book.currency.code, found, tiered)


def unit_price(price: Price, minutes: int) -> Decimal | None:
    """Of a million minutes where a month has come to so many; a quantity at a tier's end belongs to
    it. None for a model that this release does not know."""
    quantity = Decimal(minutes).scaleb(_POWER, _EXACT)
    if price.unit_price is not None:
        return price.unit_price
    if price.tiers:
        for tier in price.tiers:
            if tier.up_to is None or quantity <= tier.up_to:
                return tier.unit_price
        return price.tiers[-1].unit_price
    if price.package_price is not None and price.package_size:
        return _EXACT.divide(price.package_price, price.package_size)
    return None
