"""Commands and fold of a service: what may be done, what must never come about."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from handoff_common.errors import ApiError
from handoff_common.events import Limits
from handoff_config import history, part_commands, products, service_commands, snapshots
from handoff_config.contracts import Contract, Customer
from handoff_config.services import Service, fold, in_matching_order
from handoff_config.streams import SERVICE, encode

NOW = 1_700_000_000_000
CUSTOMER = Customer("cu", "Acme", "paid", contracts={"k": Contract("k", "websockets", 0)})


def do(state: Service | None, events: Any, at_ms: int = NOW) -> Service:
    for event in events:
        state = fold(state, event, at_ms)
    assert state is not None
    return state


def created() -> Service:
    return do(None, service_commands.create("sv", "cu", {"name": "chat"}))


def complete() -> Service:
    state = created()
    state = do(state, part_commands.save_domain(state, 1, None, {"name": "Chat.Example.com"}))
    values = {"name": "origin", "address": "origin.example.com"}
    return do(state, part_commands.save_backend(state, 1, None, values))


def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


def test_a_service_begins_with_a_draft_and_everything_off() -> None:
    state = created()
    assert list(state.versions) == [1]
    assert state.active is None
    told = snapshots.of_service(state, 7)
    assert (told.websockets_enabled, told.ngwaf_enabled, told.domains) == (False, False, ())


def test_activating_needs_a_domain_and_a_backend_and_says_so() -> None:
    error = refused(lambda: service_commands.activate(created(), 1))
    assert (error.status, error.code) == (422, "version_invalid")
    assert "no domain" in error.detail
    assert "no backend" in error.detail
    assert "'chat'" in error.detail


def test_activating_locks_and_moves() -> None:
    state = complete()
    state = do(state, service_commands.activate(state, 1))
    state = do(state, service_commands.clone(state, 1))
    state = do(state, service_commands.activate(state, 2))
    assert (state.active_version, state.versions[1].locked) == (2, True)
    assert service_commands.activate(state, 2) == ()
    back = do(state, service_commands.activate(state, 1))
    assert back.active_version == 1
    assert do(back, service_commands.deactivate(back, 1)).active is None
    assert refused(lambda: service_commands.deactivate(back, 2)).code == "version_not_active"


def test_the_snapshot_is_the_active_version() -> None:
    state = complete()
    values = {"name": "r", "backend": "origin", "header_name": "X-Room", "host": "Chat.example.com"}
    state = do(state, part_commands.save_rule(state, 1, None, values))
    state = do(state, service_commands.activate(state, 1))
    told = snapshots.of_service(state, 9)
    assert told.revision == 9
    assert told.domains == ("chat.example.com",)
    assert (told.backends[0].address, told.backends[0].port) == ("origin.example.com", 80)
    assert told.rules[0].host == "chat.example.com"
    assert told.rules[0].header is not None
    assert (told.rules[0].header.name, told.rules[0].header.value) == ("X-Room", None)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: part_commands.save_domain(s, 1, None, {"name": "b.example.com"}),
        lambda s: part_commands.delete_domain(s, 1, "chat.example.com"),
        lambda s: part_commands.save_backend(s, 1, "origin", {"comment": "x"}),
        lambda s: part_commands.delete_backend(s, 1, "origin"),
        lambda s: part_commands.save_director(s, 1, None, {"name": "d"}),
        lambda s: part_commands.save_rule(s, 1, None, {"name": "r", "backend": "origin"}),
        lambda s: part_commands.link(s, 1, "d", "origin"),
        lambda s: service_commands.update_version(s, 1, {"comment": "x"}),
    ],
)
def test_an_active_or_locked_version_is_immutable(change: Any) -> None:
    state = complete()
    for step in (service_commands.lock, service_commands.activate):
        locked = do(state, step(state, 1))
        error = refused(lambda locked=locked: change(locked))
        assert (error.status, error.title) == (422, "Version locked")


def test_names_are_unique_and_host_names_know_no_case() -> None:
    state = complete()
    error = refused(lambda: part_commands.save_domain(state, 1, None, {"name": "CHAT.example.com"}))
    assert (error.status, error.code) == (409, "duplicate")
    same = part_commands.save_domain(state, 1, "chat.EXAMPLE.com", {"name": "chat.example.com"})
    assert list(do(state, same).versions[1].domains) == ["chat.example.com"]
    values = {"name": "origin", "address": "b.example.com"}
    assert refused(lambda: part_commands.save_backend(state, 1, None, values)).code == "duplicate"


def test_references_follow_a_renamed_backend() -> None:
    state = complete()
    state = do(state, part_commands.save_director(state, 1, None, {"name": "d"}))
    state = do(state, part_commands.link(state, 1, "d", "origin"))
    state = do(state, part_commands.save_rule(state, 1, None, {"name": "r", "backend": "origin"}))
    state = do(state, part_commands.save_backend(state, 1, "origin", {"name": "new"}))
    version = state.versions[1]
    assert version.directors["d"].backends == ("new",)
    assert version.rules["r"].backend == "new"
    state = do(state, part_commands.delete_backend(state, 1, "new"))
    assert state.versions[1].directors["d"].backends == ()
    assert "'r' names backend 'new'" in service_commands.verdict(state, 1).errors[1]


def test_rules_are_tried_by_priority_then_name() -> None:
    state = complete()
    for name, priority in (("b", 10), ("a", 10), ("z", 1), ("c", None)):
        values = {"name": name, "priority": priority, "backend": "origin"}
        state = do(state, part_commands.save_rule(state, 1, None, values))
    order = [r.name for r in in_matching_order(state.versions[1].rules.values())]
    assert order == ["z", "a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"backend": None}, "backend"),
        ({"path_prefix": "chat"}, "path_prefix"),
        ({"path_prefix": "/a", "path_pattern": "/b*"}, "path_pattern"),
        ({"priority": -1}, "priority"),
        ({"header_value": "x"}, "header_name"),
        ({"query_value": "x"}, "query_name"),
        ({"header_name": "X Room"}, "header_name"),
        ({"subprotocol": "a,b"}, "subprotocol"),
        ({"host": "not a host"}, "host"),
    ],
)
def test_wrong_rules_are_refused_by_field(values: dict[str, Any], field: str) -> None:
    whole = {"name": "r", "backend": "origin", **values}
    error = refused(lambda: part_commands.save_rule(complete(), 1, None, whole))
    assert [e.property for e in error.errors] == [field]


@pytest.mark.parametrize("name", ["", "a b", "*.", "*.*.x", "a..b", "ä.example", "x" * 254, "-a.b"])
def test_wrong_domains_are_refused(name: str) -> None:
    error = refused(lambda: part_commands.save_domain(created(), 1, None, {"name": name}))
    assert [e.property for e in error.errors] == ["name"]


@pytest.mark.parametrize("name", ["*.example.com", "localhost", "a-b.x1.example", "_x.example.com"])
def test_right_domains_are_taken(name: str) -> None:
    assert part_commands.save_domain(created(), 1, None, {"name": name})


@pytest.mark.parametrize(
    ("values", "field"),
    [({"type": 2}, "type"), ({"quorum": 101}, "quorum"), ({"retries": -1}, "retries")],
)
def test_wrong_directors_are_refused(values: dict[str, Any], field: str) -> None:
    whole = {"name": "d", **values}
    error = refused(lambda: part_commands.save_director(created(), 1, None, whole))
    assert [e.property for e in error.errors] == [field]


def test_an_active_service_is_not_deleted_and_a_deleted_one_is_off() -> None:
    state = complete()
    state = do(state, service_commands.activate(state, 1))
    assert refused(lambda: service_commands.delete(state)).code == "service_active"
    state = do(state, products.enable(state, "websockets", CUSTOMER, NOW, contact=""))
    state = do(state, service_commands.deactivate(state, 1))
    state = do(state, service_commands.delete(state))
    told = snapshots.of_service(state, 3)
    assert (told.websockets_enabled, told.active_version) == (False, None)
    assert told.deleted_at is not None
    assert refused(lambda: service_commands.live(state, "sv")).status == 404


def test_limits_are_checked_and_kept() -> None:
    error = refused(
        lambda: service_commands.checked_limits({"idle_timeout_ms": 0, "max_connections": -1})
    )
    assert {e.property for e in error.errors} == {"idle_timeout_ms", "max_connections"}
    limits = service_commands.checked_limits({"max_connections": 5, "idle_timeout_ms": None})
    state = do(created(), service_commands.set_limits(created(), limits))
    assert snapshots.of_service(state, 1).limits == Limits(max_connections=5)
    assert service_commands.set_limits(state, limits) == ()


def test_history_tells_before_and_after_without_secrets() -> None:
    state = complete()
    (event,) = part_commands.save_backend(
        state, 1, "origin", {"name": "new", "ssl_client_key": "KEY", "port": 9000}
    )
    change = history.change(state, event, do(state, [event]))
    assert (change.object, change.name, change.version) == ("backend", "new", 1)
    assert change.before is not None
    assert change.after is not None
    assert change.before["name"] == "origin"
    assert (change.after["name"], change.after["port"]) == ("new", 9000)
    assert change.after["ssl_client_key"] == "(secret)"
    assert "KEY" not in encode(change)


def test_wide_versions_are_bounded() -> None:
    state = created()
    for n in range(part_commands.MAX_PARTS):
        state = do(state, part_commands.save_domain(state, 1, None, {"name": f"d{n}.example"}))
    error = refused(lambda: part_commands.save_domain(state, 1, None, {"name": "more.example"}))
    assert error.code == "too_many"


numbers = st.sampled_from([0, 0, 0, 1, 2])
"""How far behind the newest version: drafts are mostly among the newest."""
names = st.sampled_from(["a", "b", "c"])


class AnyInterleaving(RuleBasedStateMachine):
    """Any commands in any order, refused ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Service | None = None
        self.recorded: list[tuple[Any, int]] = []
        self.locked: dict[int, Any] = {}

    @property
    def service(self) -> Service:
        assert self.state is not None
        return self.state

    def command(self, number: int, call: Any) -> None:
        before = self.state
        try:
            events = call(self.service, max(self.service.versions) - number)
        except ApiError as error:
            assert 400 <= error.status < 500
            assert error.detail
            return
        for event in events:
            at_ms = NOW + len(self.recorded)
            previous = self.state
            self.state = fold(self.state, event, at_ms)
            history.change(previous, event, self.state)
            self.recorded.append((event, at_ms))
        if events:
            assert self.state != before

    @initialize(complete=st.booleans())
    def create(self, complete: bool) -> None:
        for event in service_commands.create("sv", "cu", {"name": "chat"}):
            self.state = fold(self.state, event, NOW)
            self.recorded.append((event, NOW))
        if complete:
            backend = {"name": "a", "address": "192.0.2.1"}
            domain = {"name": "a.example"}
            self.command(0, lambda s, n: part_commands.save_domain(s, n, None, domain))
            self.command(0, lambda s, n: part_commands.save_backend(s, n, None, backend))

    @rule(number=numbers)
    def clone(self, number: int) -> None:
        if len(self.service.versions) < 8:
            self.command(number, lambda s, n: service_commands.clone(s, n))

    @rule(number=numbers, step=st.sampled_from(["activate", "deactivate", "lock"]))
    def step(self, number: int, step: str) -> None:
        self.command(number, lambda s, n: getattr(service_commands, step)(s, n))

    @rule(number=numbers, name=names, was=st.none() | names)
    def domain(self, number: int, name: str, was: str | None) -> None:
        values = {"name": f"{name}.example"}
        old = was and f"{was}.EXAMPLE"
        self.command(number, lambda s, n: part_commands.save_domain(s, n, old, values))

    @rule(
        number=numbers,
        name=names,
        was=st.none() | names,
        off=st.sampled_from([{}, {"max_conn": 201}, {"shield": "x"}, {"shield": None}]),
    )
    def backend(self, number: int, name: str, was: str | None, off: dict[str, Any]) -> None:
        values = {"name": name, "address": "192.0.2.1", **off}
        self.command(number, lambda s, n: part_commands.save_backend(s, n, was, values))

    @rule(number=numbers, name=names, was=st.none() | names)
    def director(self, number: int, name: str, was: str | None) -> None:
        self.command(number, lambda s, n: part_commands.save_director(s, n, was, {"name": name}))

    @rule(number=numbers, name=names, was=st.none() | names, backend=names)
    def websocket_rule(self, number: int, name: str, was: str | None, backend: str) -> None:
        values = {"name": name, "backend": backend}
        self.command(number, lambda s, n: part_commands.save_rule(s, n, was, values))

    @rule(number=numbers, director=names, backend=names, way=st.sampled_from(["link", "unlink"]))
    def link(self, number: int, director: str, backend: str, way: str) -> None:
        self.command(number, lambda s, n: getattr(part_commands, way)(s, n, director, backend))

    @rule(number=numbers, name=names, kind=st.sampled_from(["backend", "director", "rule"]))
    def delete(self, number: int, name: str, kind: str) -> None:
        self.command(number, lambda s, n: getattr(part_commands, f"delete_{kind}")(s, n, name))

    @rule(product=st.sampled_from(products.PRODUCTS))
    def enable(self, product: str) -> None:
        self.command(0, lambda s, _: products.enable(s, product, CUSTOMER, NOW, contact="x"))

    @rule(product=st.sampled_from(products.PRODUCTS), keep_open=st.booleans())
    def disable(self, product: str, keep_open: bool) -> None:
        self.command(0, lambda s, _: products.disable(s, product, keep_open=keep_open))

    @invariant()
    def the_state_is_the_fold_of_the_stored_events(self) -> None:
        stored = [(SERVICE.events.decode(encode(e)), at) for e, at in self.recorded]
        folded = SERVICE.folded(stored)
        assert folded == self.state
        if self.state is not None:
            assert SERVICE.states.decode(encode(self.state)) == self.state

    @invariant()
    def what_is_enabled_is_compatible(self) -> None:
        if self.state is not None and self.state.enabled("websockets"):
            assert products.violations(self.state.active, ngwaf=self.state.enabled("ngwaf")) == ()

    @invariant()
    def what_is_active_is_locked_and_complete(self) -> None:
        if self.state is not None and self.state.active is not None:
            version = self.state.active
            assert version.locked
            assert version.domains
            assert version.backends
            assert all(r.backend in version.backends for r in version.rules.values())

    @invariant()
    def what_is_locked_stays_as_it_is(self) -> None:
        for number, version in (self.state.versions if self.state else {}).items():
            if version.locked:
                kept = (version.domains, version.backends, version.directors, version.rules)
                assert self.locked.setdefault(number, kept) == kept

    @invariant()
    def members_of_directors_exist(self) -> None:
        for version in (self.state.versions if self.state else {}).values():
            for key, director in version.directors.items():
                assert key == director.name
                assert set(director.backends) <= set(version.backends)
                assert len(set(director.backends)) == len(director.backends)


AnyInterleaving.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyInterleaving = AnyInterleaving.TestCase
