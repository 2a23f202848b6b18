"""The rule book: the greatest revision wins, whatever the order."""

from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.instants import to_ms
from handoff_edge.rulebook import RuleBook, Saved, entitlement
from support.edge_events import NOW, cap, contract, customer, end_connection, service

NAMES = ["a.example", "b.example", "*.example", "c.test"]


@st.composite
def snapshots(draw: st.DrawFn) -> list[Any]:
    """Service snapshots with revisions that are unique in the whole system."""
    found = []
    for revision in range(1, draw(st.integers(1, 9)) + 1):
        found.append(
            service(
                revision,
                service_id=draw(st.sampled_from(["s1", "s2", "s3"])),
                domains=tuple(draw(st.sets(st.sampled_from(NAMES)))),
                active_version=draw(st.sampled_from([None, 1])),
                deleted_at=draw(st.sampled_from([None, None, NOW])),
            )
        )
    return found


def folded(events: list[Any]) -> dict[str, Any]:
    book = RuleBook()
    for event in events:
        book.apply(event)
    return {host: book.service_for(host) for host in ("a.example", "b.example", "x.example")}


@settings(max_examples=60)
@given(snapshots(), st.data())
def test_the_order_of_snapshots_and_repeats_do_not_matter(
    events: list[Any], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(events + events[:3]))
    assert folded(shuffled) == folded(events)


@settings(max_examples=40)
@given(snapshots())
def test_a_saved_book_reads_back_the_same(events: list[Any]) -> None:
    book = RuleBook()
    for event in [*events, customer(), cap(), end_connection("c1", NOW)]:
        book.apply(event)
    text = msgspec.json.encode(book.saved())
    again = RuleBook.restored(msgspec.json.decode(text, type=Saved))
    for host in ("a.example", "b.example", "x.example"):
        assert again.service_for(host) == book.service_for(host)
    assert again.customer("cus") == book.customer("cus")
    assert again.cap("cus") == book.cap("cus")
    assert again.asked_ends(0) == book.asked_ends(0)


def test_domains_without_regard_to_case_port_apart_and_one_label_for_a_star() -> None:
    book = RuleBook()
    book.apply(service(1, service_id="exact", domains=("Chat.Example.com.",)))
    book.apply(service(2, service_id="star", domains=("*.example.com",)))

    def owner(host: str) -> str | None:
        found = book.service_for(host)
        return found.service_id if found else None

    assert owner("CHAT.example.COM") == "exact"
    assert owner("chat.example.com.") == "exact"
    assert owner("other.example.com") == "star"
    assert owner("a.b.example.com") is None
    assert owner("example.com") is None


def test_the_later_claim_of_a_domain_has_it_until_it_lets_go() -> None:
    book = RuleBook()
    book.apply(service(5, service_id="new"))
    book.apply(service(4, service_id="old"))
    found = book.service_for("chat.example.com")
    assert found is not None and found.service_id == "new"
    book.apply(service(6, service_id="new", deleted_at=NOW))
    found = book.service_for("chat.example.com")
    assert found is not None and found.service_id == "old"


def test_stale_snapshots_say_nothing_new() -> None:
    book = RuleBook()
    assert book.apply(service(2))
    assert not book.apply(service(2))
    assert not book.apply(service(1, domains=()))
    assert book.apply(customer(2))
    assert not book.apply(customer(1))
    assert book.services == 1 and book.domains == 1


def test_caps_go_on_and_off_and_asked_ends_expire() -> None:
    book = RuleBook()
    assert book.apply(cap())
    assert not book.apply(cap())
    assert book.cap("cus") is not None
    book.apply(cap(on=False))
    assert book.cap("cus") is None
    book.apply(end_connection("c1", NOW))
    assert [end.connection_id for end in book.asked_ends(to_ms(NOW) - 1)] == ["c1"]
    assert book.asked_ends(to_ms(NOW)) == []


def test_a_contract_is_in_force_from_its_start_to_just_before_its_end() -> None:
    day = timedelta(days=1)
    contracts = [contract(NOW - 3 * day, NOW - 2 * day), contract(NOW, NOW + day)]
    now = to_ms(NOW)
    assert not entitlement(contracts, now - 1).in_force
    assert entitlement(contracts, now - 1).ended_ms == to_ms(NOW - 2 * day)
    assert entitlement(contracts, now).in_force
    assert entitlement(contracts, to_ms(NOW + day) - 1).in_force
    assert not entitlement(contracts, to_ms(NOW + day)).in_force
    assert entitlement([contract(NOW)], now + 10**12).in_force
    other = msgspec.structs.replace(contract(NOW), product="ngwaf")
    assert entitlement([other], now) == (entitlement([], now))
