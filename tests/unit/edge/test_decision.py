"""The decision: each refusal in its order, rules by their first match."""

from datetime import timedelta
from typing import Any

import pytest

from handoff_common.events import BackendSnapshot, Limits, NameValue, RuleSnapshot
from handoff_common.instants import to_ms
from handoff_edge.decision import Handoff, decide
from handoff_edge.errors import STATUS, Refusal
from handoff_edge.head import Head
from handoff_edge.rulebook import RuleBook
from support.edge_events import NOW, cap, contract, customer, head, service

A = BackendSnapshot(name="a", address="a.test", port=80)
B = BackendSnapshot(name="b", address="b.test", port=443, use_ssl=True, override_host="inner")
LATER = NOW + timedelta(days=1)


def ask(*events: Any, head_: Head | None = None, at: Any = NOW) -> Handoff | Refusal:
    book = RuleBook()
    for event in events:
        book.apply(event)
    return decide(book, head_ or head(), to_ms(at))


def refused(outcome: Handoff | Refusal) -> str:
    assert isinstance(outcome, Refusal)
    assert outcome.status == STATUS[outcome.code]
    return outcome.code


def test_the_only_backend_takes_all() -> None:
    outcome = ask(service(), customer())
    assert isinstance(outcome, Handoff)
    assert (outcome.service_id, outcome.customer_id, outcome.service_version) == ("svc", "cus", 3)
    assert (outcome.domain, outcome.rule, outcome.backend.name) == (
        "chat.example.com",
        None,
        "main",
    )


def test_each_refusal_and_its_order() -> None:
    """Everything is wrong at first; each repair uncovers the next refusal."""
    off = {"websockets_enabled": False, "backends": (A, B)}
    on = {**off, "websockets_enabled": True}
    poor = {"account_type": "trial", "suspended": True, "contracts": ()}
    late = (contract(NOW),)

    assert refused(ask(service(1, **off), customer(), head_=head("x.test"))) == "unknown_domain"
    assert refused(ask(service(1, **off), customer(1, **poor), cap())) == "not_enabled"
    assert refused(ask(service(1, **on), cap())) == "no_contract"
    assert refused(ask(service(1, **on), customer(1, **poor), cap())) == "no_contract"
    poor["contracts"] = late
    assert refused(ask(service(1, **on), customer(1, **poor), cap())) == "trial_account"
    poor["account_type"] = "paid"
    assert refused(ask(service(1, **on), customer(1, **poor), cap())) == "suspended"
    poor["suspended"] = False
    assert refused(ask(service(1, **on), customer(1, **poor), cap())) == "over_budget"
    assert refused(ask(service(1, **on), customer(1, **poor), cap(on=False))) == "no_rule"
    on["backends"] = (A,)
    limits = Limits(max_connections=0)
    outcome = ask(service(1, **on, limits=limits), customer())
    assert isinstance(outcome, Handoff), "a place is taken where places are counted"
    assert outcome.limits == limits


def test_an_ended_contract_refuses_without_being_told() -> None:
    ended = customer(1, contracts=(contract(NOW - timedelta(days=9), NOW),))
    assert isinstance(ask(service(), ended, at=NOW - timedelta(milliseconds=1)), Handoff)
    assert refused(ask(service(), ended, at=NOW)) == "no_contract"
    coming = customer(1, contracts=(contract(LATER),))
    assert refused(ask(service(), coming)) == "no_contract"
    assert refused(ask(service(), customer(1, deleted_at=NOW))) == "no_contract"


@pytest.mark.parametrize(
    ("conditions", "matches", "misses"),
    [
        ({"host": "chat.example.com"}, head(), None),
        ({"host": "*.example.com"}, head(), None),
        ({"host": "CHAT.example.com"}, head(), None),
        ({"host": "other.example.com"}, None, head()),
        ({"path_prefix": "/a"}, head(target="/a/b"), head(target="/b/a")),
        ({"path_prefix": "/a?"}, None, head(target="/a?x")),
        ({"path_pattern": "/*/b"}, head(target="/x/y/b"), head(target="/x/b/c")),
        (
            {"path_pattern": "/a%20*"},
            head(target="/a%20b?q"),
            head(target="/a b".replace(" ", "+")),
        ),
        (
            {"header": NameValue(name="X-Team", value="blue")},
            head(extra="x-team: red\r\nX-TEAM:  blue\r\n"),
            head(extra="x-team: blue2\r\n"),
        ),
        ({"header": NameValue(name="X-Team")}, head(extra="x-team:\r\n"), head()),
        (
            {"query": NameValue(name="room", value="a b")},
            head(target="/?room=c&room=a%20b"),
            head(target="/?room=a"),
        ),
        ({"query": NameValue(name="room")}, head(target="/?room="), head(target="/?x=room")),
        (
            {"subprotocol": "v2"},
            head(extra="Sec-WebSocket-Protocol: v1, v2\r\n"),
            head(extra="Sec-WebSocket-Protocol: v1\r\n"),
        ),
        (
            {"path_prefix": "/a", "subprotocol": "v2"},
            head(target="/a", extra="Sec-WebSocket-Protocol: v2\r\n"),
            head(target="/a"),
        ),
    ],
)
def test_conditions(conditions: dict[str, Any], matches: Head | None, misses: Head | None) -> None:
    ruled = service(1, backends=(A, B), rules=(RuleSnapshot(name="r", backend="b", **conditions),))
    if matches is not None:
        outcome = ask(ruled, customer(), head_=matches)
        assert isinstance(outcome, Handoff)
        assert (outcome.rule, outcome.backend) == ("r", B)
    if misses is not None:
        assert refused(ask(ruled, customer(), head_=misses)) == "no_rule"


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        RuleSnapshot(name="one", path_prefix="/a", backend="a"),
        RuleSnapshot(name="two", backend="b"),
    )
    ruled = service(1, backends=(A, B), rules=rules)
    first, second = (ask(ruled, customer(), head_=head(target=t)) for t in ("/a", "/b"))
    assert isinstance(first, Handoff) and first.rule == "one"
    assert isinstance(second, Handoff) and second.rule == "two"


def test_a_rule_without_its_backend_is_no_match() -> None:
    ruled = service(1, rules=(RuleSnapshot(name="r", backend="gone"),))
    assert refused(ask(ruled, customer())) == "no_rule"
    assert refused(ask(service(1, backends=()), customer())) == "no_rule"
