"""What WebSockets does not go together with, and when it may be switched on."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.errors import ApiError
from handoff_config import part_commands, products, service_commands
from handoff_config.backends import FIELDS
from handoff_config.contracts import Contract, Customer, entitlement
from handoff_config.products import violations
from handoff_config.services import Service, fold

NOW = 1_700_000_000_000
DAY = 86_400_000
PAID = Customer(
    "cu", "Acme", "paid", contracts={"k": Contract("k", "websockets", NOW - DAY, NOW + DAY)}
)


def do(state: Service | None, events: Any) -> Service:
    for event in events:
        state = fold(state, event, NOW)
    assert state is not None
    return state


def service(*, active: bool = False, **backend: Any) -> Service:
    state = do(None, service_commands.create("sv", "cu", {"name": "chat"}))
    state = do(state, part_commands.save_domain(state, 1, None, {"name": "chat.example.com"}))
    values = {"name": "origin", "address": "origin.example.com", **backend}
    state = do(state, part_commands.save_backend(state, 1, None, values))
    return do(state, service_commands.activate(state, 1)) if active else state


def enable(state: Service, customer: Customer | None = PAID) -> Service:
    events = products.enable(state, "websockets", customer, NOW, contact="sales@acme")
    return do(state, events)


def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


def wrong_in_every_way() -> Service:
    """A director, a shielded backend, max_conn 201, NGWAF, and a rule to nowhere: all active."""
    state = service(shield="lga-ny-us", max_conn=201)
    state = do(state, part_commands.save_director(state, 1, None, {"name": "pool"}))
    state = do(state, service_commands.activate(state, 1))
    return do(state, products.enable(state, "ngwaf", PAID, NOW, contact=""))


def test_every_violation_is_listed_by_name() -> None:
    state = wrong_in_every_way()
    found = {(v.object, v.name, v.field) for v in violations(state.active, ngwaf=True)}
    assert found == {
        ("product", "ngwaf", "enabled"),
        ("director", "pool", "name"),
        ("backend", "origin", "shield"),
        ("backend", "origin", "max_conn"),
    }
    error = refused(lambda: enable(state))
    assert (error.status, error.code) == (400, "incompatible")
    for part in ("ngwaf", "pool", "lga-ny-us", "max_conn is 201; allowed: 200"):
        assert part in error.detail
    assert len(error.errors) == 4


def test_a_rule_that_names_a_missing_backend_is_a_violation() -> None:
    state = service()
    state = do(state, part_commands.save_rule(state, 1, None, {"name": "r", "backend": "gone"}))
    (violation,) = violations(state.versions[1], ngwaf=False)
    assert (violation.object, violation.name, violation.value) == ("websocket-rule", "r", "gone")
    assert "origin" in violation.allowed


def test_a_service_without_an_active_version_may_be_enabled() -> None:
    assert enable(service(max_conn=201)).enabled("websockets")


def test_enabling_twice_and_disabling_what_is_off_are_no_events() -> None:
    state = enable(service(active=True))
    assert products.enable(state, "websockets", None, NOW, contact="") == ()
    off = do(state, products.disable(state, "websockets", keep_open=True))
    assert off.products["websockets"].keep_open
    assert products.disable(off, "websockets", keep_open=False) == ()


def test_what_is_enabled_cannot_be_made_incompatible_by_activating() -> None:
    state = enable(service(active=True))
    state = do(state, service_commands.clone(state, 1))
    state = do(state, part_commands.save_director(state, 2, None, {"name": "pool"}))
    state = do(state, part_commands.save_backend(state, 2, "origin", {"shield": "lga-ny-us"}))
    warnings = service_commands.verdict(state, 2).warnings
    assert len(warnings) == 2
    assert any("'pool'" in w for w in warnings)
    assert any("lga-ny-us" in w for w in warnings)
    assert service_commands.verdict(state, 2).errors == []
    error = refused(lambda: service_commands.activate(state, 2))
    assert (error.status, error.code) == (422, "incompatible")
    assert "pool" in error.detail
    assert "lga-ny-us" in error.detail
    assert state.active_version == 1


def test_a_draft_of_a_service_without_websockets_has_no_such_warnings() -> None:
    assert service_commands.verdict(service(max_conn=201), 1).warnings == []


def test_ngwaf_cannot_be_enabled_beside_websockets() -> None:
    state = enable(service(active=True))
    error = refused(lambda: products.enable(state, "ngwaf", PAID, NOW, contact=""))
    assert (error.status, error.code) == (400, "incompatible")
    assert "websockets" in error.detail


@pytest.mark.parametrize(
    ("customer", "says"),
    [
        (None, "does not exist"),
        (Customer("cu", "Acme", "paid"), "no contract for websockets is in force"),
        (Customer("cu", "Acme", "trial", contracts=PAID.contracts), "needs a paid account"),
        (Customer("cu", "Acme", "paid", suspended=True, contracts=PAID.contracts), "suspended"),
        (Customer("cu", "Acme", "paid", deleted_ms=1, contracts=PAID.contracts), "not exist"),
        (
            Customer("cu", "A", "paid", contracts={"k": Contract("k", "websockets", 0, NOW)}),
            "ended at 2023-11-14T22:13:20Z",
        ),
        (
            Customer("cu", "A", "paid", contracts={"k": Contract("k", "websockets", NOW + 1)}),
            "starts at",
        ),
        (Customer("cu", "A", "paid", contracts={"k": Contract("k", "ngwaf", 0)}), "no contract"),
    ],
)
def test_only_a_paid_account_with_a_contract_in_force_is_entitled(
    customer: Customer | None, says: str
) -> None:
    error = refused(lambda: enable(service(), customer))
    assert (error.status, error.code) == (400, "not_entitled")
    assert "not entitled to enable" in error.title
    assert says in error.detail
    assert error.detail.endswith("contact sales@acme")


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 50)), max_size=5))
@settings(max_examples=80)
def test_entitled_exactly_while_some_contract_is_in_force(
    periods: list[tuple[int, int | None]],
) -> None:
    contracts = {str(i): Contract(str(i), "websockets", *p) for i, p in enumerate(periods)}
    customer = Customer("cu", "Acme", "paid", contracts=contracts)
    for at in range(52):
        in_force = any(s <= at and (e is None or at < e) for s, e in periods)
        assert (entitlement(customer, "websockets", at).lacking is None) == in_force


def test_free_settings_are_free() -> None:
    state = service(
        port=8443, use_ssl=True, override_host="inner.example.com", comment="blue", active=True
    )
    assert violations(state.active, ngwaf=False) == ()
    assert {"port", "use_ssl", "override_host", "comment"} <= {f.name for f in FIELDS if f.free}
