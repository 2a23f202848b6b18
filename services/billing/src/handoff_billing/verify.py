"""Checks an invoice from its own document and the usage found in the log. Pure.

Prices and terms are those of the document; the usage is given. All is rated again, the document is
built again, and the two are compared: they are equal, or the first place where they differ is
named.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from handoff_billing import pricebook, terms
from handoff_billing.corrections import (
    Carried,
    Correction,
    billed_by,
    carried_forward,
    complete,
)
from handoff_billing.errors import PriceBookInvalid
from handoff_billing.instants import instant_ms
from handoff_billing.invoice import (
    CORRECTION_TYPE,
    DELIVERY_COLUMNS,
    DOCUMENT_TYPE,
    DOCUMENT_TYPES,
    Subject,
    billed_document,
    canonical,
    chain_hash,
    content_document,
    content_hash,
    link_document,
)
from handoff_billing.money import ZERO, text
from handoff_billing.pricebook import PriceBook
from handoff_billing.proof import billed_of, carried_of, delivery_of
from handoff_billing.rating import RATERS
from handoff_billing.terms import Terms
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


def delivery_months(content: str) -> set[int]:
    """Starts (epoch ms) of the months of which the document holds delivery rows: its own, unless it
    is a correction issued alone, and each that it corrects. Empty where it cannot be read."""
    try:
        found = msgspec.json.decode(content)
        own = set() if found["document"] == CORRECTION_TYPE else {_subject(found).month_ms}
        return own | {instant_ms(one["period"]["start"]) for one in _list(found, "corrections")}
    except (_Unreadable, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return set()


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

    logged: (region, hour in epoch ms, source) → the customer's latest row, of the document's months
    (`delivery_months`). revision:
    the greatest that the invoice can have seen; None: not known, so that what differs may be later.
    """
    try:
        document = msgspec.json.decode(content)
        rows = {
            (row.region, row.hour_ms, row.source): row.bytes
            for section in (document, *document.get("corrections", ()))
            for row in delivery_of(section)
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
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


def check_billed(invoice: InvoiceData, every: Iterable[InvoiceData]) -> Difference | None:
    """Whether what an invoice says of earlier ones is what those say: the prices and terms of each
    month it corrects, all that was billed for that month before, and what was carried forward.

    every: the invoices of the log. The path begins with the invoice's number.
    """
    try:
        return _check_billed(invoice, every)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return Difference(invoice.number, "invoices that can be read", _json(repr(error)))


def _check_billed(invoice: InvoiceData, every: Iterable[InvoiceData]) -> Difference | None:
    content = _content(invoice)
    before = {
        data.number: _content(data)
        for data in sorted(every, key=lambda data: (data.issued_at, data.number))
        if data.customer_id == invoice.customer_id and _is_before(data, invoice)
    }
    for index, section in enumerate(content.get("corrections", ())):
        path = f"{invoice.number}.corrections.{index}"
        own = before.get(section["invoice"])
        if own is None:
            return Difference(f"{path}.invoice", "an earlier invoice", _json(section["invoice"]))
        billed = [billed_by(one, number, section["invoice"]) for number, one in before.items()]
        first = [one for one in billed if one.number == section["invoice"]]
        later = [one for one in billed if one.number != section["invoice"] and one.lines]
        expected = {
            **{name: own[name] for name in ("period", "rater_version", "price_book", "terms")},
            "billed": [billed_document(one) for one in (*first, *later)],
        }
        difference = first_difference(expected, {name: section[name] for name in expected}, path)
        if difference is not None:
            return difference
    return _check_carried(invoice.number, content, before)


def _check_carried(
    number: str, content: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]]
) -> Difference | None:
    taken = {
        line["corrects"]["invoice"]
        for one in before.values()
        for line in one["lines"]
        if line["kind"] == "carried_over"
    }
    for index, section in enumerate(content.get("carried", ())):
        named = section["invoice"]
        left = ZERO if named in taken else carried_forward(before.get(named, {}).get("lines", ()))
        if text(left) != section["amount"]:
            path = f"{number}.carried.{index}.amount"
            return Difference(path, _json(text(left)), _json(section["amount"]))
    return None


def _content(data: InvoiceData) -> Mapping[str, Any]:
    content: Mapping[str, Any] = msgspec.json.decode(data.content)
    return content


def _is_before(one: InvoiceData, other: InvoiceData) -> bool:
    """By number within a series: a clock may have been set back. Series by the time of issue."""
    if one.number.partition("-")[0] == other.number.partition("-")[0]:
        return one.number < other.number
    return one.issued_at < other.issued_at


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
    if not isinstance(found, Mapping) or found.get("document") not in DOCUMENT_TYPES:
        kind = found.get("document") if isinstance(found, Mapping) else found
        raise _Unreadable("document", _json(DOCUMENT_TYPE), kind)
    alone = found["document"] == CORRECTION_TYPE
    version, book, agreed = _prices(found)
    subject, delivery = _subject(found), _delivery(found)
    inside = {} if alone else _within(usage, subject.month_ms)
    rated = () if alone else RATERS[version](inside, delivery, book, agreed)
    corrections, carried = _corrections(found, usage), _carried(found)
    try:
        lines = complete(rated, corrections, carried, alone=alone)
    except ArithmeticError:
        raise _Unreadable("corrections", "amounts that can be added up", None) from None
    return content_document(
        subject,
        book,
        agreed,
        inside,
        delivery,
        lines,
        rater_version=version,
        corrections=corrections,
        carried=carried,
        alone=alone,
    )


def _prices(found: Mapping[str, Any], path: str = "") -> tuple[int, PriceBook, Terms]:
    """The rater version, price book and terms of a content or of a correction at `path` in it."""
    version = found.get("rater_version")
    if type(version) is not int or version not in RATERS:
        raise _Unreadable(f"{path}rater_version", f"one of {sorted(RATERS)}", version)
    try:
        return version, pricebook.parse(found.get("price_book")), terms.parse(found.get("terms"))
    except PriceBookInvalid as error:
        first = error.errors[0]
        raise _Unreadable(
            f"{path}{first.property}", "prices and terms that can be read", first.reason
        ) from None


def _within(usage: Found, month_ms: int) -> dict[UsageKey, Totals]:
    end_ms = next_month(month_ms)
    return summed(
        (UsageKey(*key), totals) for key, totals in usage.items() if month_ms <= key[2] < end_ms
    )


def _corrections(found: Mapping[str, Any], usage: Found) -> list[Correction]:
    """The corrections of a document, with the usage given and all else as the document has it."""
    made = []
    for index, section in enumerate(_list(found, "corrections")):
        path = f"corrections.{index}"
        if not isinstance(section, Mapping):
            raise _Unreadable(path, "a correction", section)
        version, book, agreed = _prices(section, f"{path}.")
        try:
            month_ms, billed = instant_ms(section["period"]["start"]), billed_of(section)
            if billed[0].number != section["invoice"]:
                raise ValueError("the corrected invoice comes first")
            delivery = delivery_of(section)
        except (IndexError, KeyError, TypeError, ValueError):
            expected = "a period, delivery rows, and what each invoice has billed"
            raise _Unreadable(path, expected, section) from None
        inside = _within(usage, month_ms)
        made.append(Correction(month_ms, book, agreed, version, inside, delivery, billed))
    return made


def _carried(found: Mapping[str, Any]) -> list[Carried]:
    _list(found, "carried")
    try:
        return carried_of(found)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _Unreadable("carried", "invoices and amounts", found.get("carried")) from None


def _list(found: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = found.get(name, [])
    if not isinstance(value, list):
        raise _Unreadable(name, "a list", value)
    return value


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
