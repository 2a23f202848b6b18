"""Checks an invoice from its own document and the usage found in the log. Pure.

Prices and terms are those of the document; the usage is given. All is rated again, the document is
built again, and the two are compared: they are equal, or the first place where they differ is
named.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from handoff_billing import pricebook, terms
from handoff_billing.errors import PriceBookInvalid
from handoff_billing.instants import instant_ms
from handoff_billing.invoice import (
    DELIVERY_COLUMNS,
    DOCUMENT_TYPE,
    Subject,
    canonical,
    chain_hash,
    content_document,
    content_hash,
    link_document,
)
from handoff_billing.proof import delivery_of
from handoff_billing.rating import RATERS
from handoff_billing.usage import Delivered, Totals, UsageKey, summed
from handoff_common.events import InvoiceData
from handoff_common.instants import rfc3339, to_ms
from handoff_common.minutes import next_month

Found = Mapping[UsageKey, Totals] | Mapping[tuple[str, str, int], Totals]

ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    """`path` into the document, such as `lines.0.amount`. expected: what the usage and prices give;
    found: what the document says. Both as JSON text, ABSENT where there is nothing."""

    path: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Verification:
    """`ok` where the content is what its usage and prices give, to the last byte.

    content_hash: of the content given. rebuilt_hash: of the content computed here, "" where the
    document could not be read.
    """

    ok: bool
    content_hash: str
    rebuilt_hash: str
    difference: Difference | None = None


def verify(content: str, usage: Found) -> Verification:
    """Rate `usage` with the document's own prices and compare.

    usage: (service id, region, hour in epoch ms) → totals of all slices; hours outside the
    document's month are left out.
    """
    given_hash = content_hash(content)
    try:
        found = msgspec.json.decode(content)
        rebuilt = _rebuild(found, usage)
    except _Unreadable as error:
        return Verification(False, given_hash, "", error.difference)
    except msgspec.DecodeError as error:
        return Verification(False, given_hash, "", Difference("", "JSON", str(error)))
    except RecursionError:
        return _too_deep(given_hash)
    again = canonical(rebuilt)
    if again == content:
        return Verification(True, given_hash, content_hash(again))
    try:
        difference = first_difference(rebuilt, found) or Difference(
            "", "the canonical text of these values (RFC 8785)", "another text of the same values"
        )
    except RecursionError:
        return _too_deep(given_hash)
    return Verification(False, given_hash, content_hash(again), difference)


def period_of(content: str) -> int | None:
    """Start of the document's month, epoch ms; None where it cannot be read."""
    try:
        return _subject(msgspec.json.decode(content)).month_ms
    except (_Unreadable, AttributeError, ValueError, RecursionError):
        return None


def _too_deep(given_hash: str) -> Verification:
    said = Difference("", "an invoice's document", "JSON that is nested too deep to be one")
    return Verification(False, given_hash, "", said)


class Logged(NamedTuple):
    """The latest row of the delivery topic for its region, hour and source."""

    revision: int
    bytes: int


class DeliveryCheck(NamedTuple):
    """proved: rows of the document that are those of the log. superseded: rows that cannot be
    compared, since a later figure has taken their place in the log."""

    proved: int
    superseded: int
    difference: Difference | None


def check_delivery(
    content: str, logged: Mapping[tuple[str, int, str], Logged], revision: int | None
) -> DeliveryCheck:
    """Whether the document's delivery rows are those that the log had.

    logged: (region, hour in epoch ms, source) → the customer's latest row, of the month. revision:
    the greatest that the invoice can have seen; None: not known, so that what differs may be later.
    """
    try:
        rows = {
            (row.region, row.hour_ms, row.source): row.bytes
            for row in delivery_of(msgspec.json.decode(content))
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        # Not readable, which `verify` says.
        return DeliveryCheck(0, 0, None)
    proved = superseded = 0
    for key in sorted(rows.keys() | logged.keys()):
        row, found = logged.get(key), rows.get(key, 0)
        if row is not None and row.bytes == found:
            proved += found > 0
        elif row is not None and (revision is None or row.revision > revision):
            superseded += found > 0
        else:
            region, hour_ms, source = key
            return DeliveryCheck(
                proved,
                superseded,
                Difference(
                    f"delivery.{region}.{rfc3339(hour_ms)}.{source}",
                    _json(str(row.bytes)) if row is not None and row.bytes else ABSENT,
                    _json(str(found)) if found else ABSENT,
                ),
            )
    return DeliveryCheck(proved, superseded, None)


def check_links(invoices: Iterable[InvoiceData]) -> Difference | None:
    """Whether the invoices, in the order of their numbers, are whole chains, one per series: each
    content has its hash, each link is the hash of what it names, each follows the one before.

    The first given of a series may be in its middle. The path begins with the invoice's number.
    """
    last: dict[str, str] = {}
    for data in invoices:
        series = data.number.partition("-")[0]
        link = chain_hash(
            link_document(
                previous=data.previous_chain_hash,
                number=data.number,
                issued_at_ms=to_ms(data.issued_at),
                positions=data.positions,
                content_hash=data.content_hash,
            )
        )
        for name, expected, found in (
            ("content_hash", content_hash(data.content), data.content_hash),
            (
                "previous_chain_hash",
                last.get(series, data.previous_chain_hash),
                data.previous_chain_hash,
            ),
            ("chain_hash", link, data.chain_hash),
        ):
            if expected != found:
                return Difference(f"{data.number}.{name}", expected, found)
        last[series] = data.chain_hash
    return None


def first_difference(expected: Any, found: Any, path: str = "") -> Difference | None:
    """The first place where two JSON values differ, in the order in which `expected` was made: so
    that a row of usage is named before the line that it changes."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in (*expected, *sorted(found.keys() - expected.keys())):
            inner = f"{path}.{key}" if path else str(key)
            if key not in expected or key not in found:
                return Difference(inner, _shown(expected, key), _shown(found, key))
            difference = first_difference(expected[key], found[key], inner)
            if difference is not None:
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list):
        for index in range(max(len(expected), len(found))):
            inner = f"{path}.{index}"
            if index >= len(expected) or index >= len(found):
                return Difference(inner, _shown(expected, index), _shown(found, index))
            difference = first_difference(expected[index], found[index], inner)
            if difference is not None:
                return difference
        return None
    if type(expected) is type(found) and expected == found:
        return None
    return Difference(path, _json(expected), _json(found))


class _Unreadable(Exception):
    def __init__(self, path: str, expected: str, found: object) -> None:
        super().__init__(path)
        self.difference = Difference(path, expected, _json(found))


def _rebuild(found: Any, usage: Found) -> dict[str, Any]:
    if not isinstance(found, Mapping) or found.get("document") != DOCUMENT_TYPE:
        kind = found.get("document") if isinstance(found, Mapping) else found
        raise _Unreadable("document", _json(DOCUMENT_TYPE), kind)
    version = found.get("rater_version")
    rater = RATERS.get(version) if isinstance(version, int) else None
    if rater is None or not isinstance(version, int):
        raise _Unreadable("rater_version", f"one of {sorted(RATERS)}", version)
    try:
        book = pricebook.parse(found.get("price_book"))
        agreed = terms.parse(found.get("terms"))
    except PriceBookInvalid as error:
        first = error.errors[0]
        raise _Unreadable(
            first.property, "prices and terms that can be read", first.reason
        ) from None
    subject, delivery = _subject(found), _delivery(found)
    end_ms = next_month(subject.month_ms)
    inside = summed(
        (UsageKey(*key), totals)
        for key, totals in usage.items()
        if subject.month_ms <= key[2] < end_ms
    )
    lines = rater(inside, delivery, book, agreed)
    return content_document(subject, book, agreed, inside, delivery, lines, rater_version=version)


def _subject(found: Mapping[str, Any]) -> Subject:
    customer, period = found.get("customer"), found.get("period")
    try:
        return Subject(
            str(customer["id"]),  # type: ignore[index]
            str(customer["name"]),  # type: ignore[index]
            instant_ms(period["start"]),  # type: ignore[index]
        )
    except (KeyError, TypeError, ValueError):
        raise _Unreadable("period", "a customer and a period", [customer, period]) from None


def _delivery(found: Mapping[str, Any]) -> list[Delivered]:
    try:
        return delivery_of(found)
    except (KeyError, TypeError, ValueError):
        expected = f"rows of {', '.join(DELIVERY_COLUMNS)}"
        raise _Unreadable("delivery", expected, found.get("delivery")) from None


def _shown(container: Any, key: Any) -> str:
    try:
        return _json(container[key])
    except (KeyError, IndexError):
        return ABSENT


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
