"""Customers, contracts, users and tokens: who may do what, and what is told of it."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from handoff_common.errors import ApiError
from handoff_config import account_commands as commands
from handoff_config import history, snapshots
from handoff_config.account_commands import Asking, NewToken
from handoff_config.contracts import (
    FORGET_TOKENS_AFTER_MS,
    Customer,
    Operators,
    fold,
    fold_operators,
)
from handoff_config.streams import CUSTOMER, encode

NOW = 1_700_000_000_000
OPERATOR = Asking("operator", None)


def do(state: Customer | None, events: Any, at_ms: int = NOW) -> Customer:
    for event in events:
        state = fold(state, event, at_ms)
    assert state is not None
    return state


def customer(**users: str) -> Customer:
    values = {"name": "Acme", "account_type": "paid", "billing_email": "pay@acme.example"}
    state = do(None, commands.create_customer("cu", values))
    for user_id, role in users.items():
        new = {"login": f"{user_id}@acme.example", "name": user_id, "role": role}
        state = do(state, commands.create_user(state, user_id, new))
    return state


def new(token_id: str = "t", expires_ms: int | None = None) -> NewToken:
    return NewToken(token_id, f"hash-{token_id}", "ci", "global", expires_ms)


def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("asking", "user", "status"),
    [
        (Asking("engineer", "eng"), "eng", None),
        (Asking("user", "usr"), "usr", None),
        (Asking("engineer", "eng"), "usr", 403),
        (Asking("billing", "bil"), "eng", 403),
        (Asking("superuser", "sup"), "eng", None),
        (OPERATOR, "eng", None),
        (Asking("superuser", "sup"), "nobody", 404),
    ],
)
def test_who_may_make_a_token_for_whom(asking: Asking, user: str, status: int | None) -> None:
    state = customer(eng="engineer", usr="user", sup="superuser", bil="billing")
    if status is None:
        made = do(state, commands.create_token(state, user, new(), asking, NOW))
        assert made.tokens["t"].user_id == user
    else:
        call = lambda: commands.create_token(state, user, new(), asking, NOW)  # noqa: E731
        assert refused(call).status == status


def test_a_token_tells_its_users_role_and_follows_it() -> None:
    state = customer(eng="engineer", sup="superuser")
    state = do(state, commands.create_token(state, "eng", new(), OPERATOR, NOW))
    assert snapshots.of_customer_tokens(state, 5)["t"].role == "engineer"
    before = state
    state = do(state, commands.update_user(state, "eng", {"role": "user"}))
    assert snapshots.of_customer_tokens(state, 6)["t"].role == "user"
    told = CUSTOMER.messages(before, state, 6, NOW)
    assert [(topic, m.key) for topic, m in told] == [("handoff.access.v1", "t")]


def test_deleting_a_user_revokes_its_tokens() -> None:
    state = customer(eng="engineer")
    state = do(state, commands.create_token(state, "eng", new(), OPERATOR, NOW))
    state = do(state, commands.delete_user(state, "eng"), NOW + 5)
    told = snapshots.of_customer_tokens(state, 7)["t"]
    assert told.revoked_at is not None
    assert told.role == "user"


def test_the_last_superuser_stays() -> None:
    state = customer(sup="superuser", eng="engineer")
    for call in (
        lambda: commands.delete_user(state, "sup"),
        lambda: commands.update_user(state, "sup", {"role": "engineer"}),
    ):
        error = refused(call)
        assert (error.status, error.code) == (409, "last_superuser")
    state = do(state, commands.update_user(state, "eng", {"role": "superuser"}))
    assert commands.delete_user(state, "sup")


@pytest.mark.parametrize(
    ("starts", "ends", "field"),
    [(5, 5, "ends_at"), (5, 4, "ends_at"), (-1, None, "starts_at"), (0, 10**15, "ends_at")],
)
def test_wrong_periods_are_refused(starts: int, ends: int | None, field: str) -> None:
    error = refused(lambda: commands.create_contract(customer(), "k", "websockets", starts, ends))
    assert [e.property for e in error.errors] == [field]


def test_a_contract_is_told_and_can_be_ended() -> None:
    state = customer()
    state = do(state, commands.create_contract(state, "k", "websockets", NOW, None))
    assert snapshots.of_customer(state, 2).contracts[0].ends_at is None
    state = do(state, commands.update_contract(state, "k", {"ends_ms": NOW + 1}))
    assert snapshots.of_customer(state, 3).contracts[0].ends_at is not None
    assert commands.update_contract(state, "k", {"ends_ms": NOW + 1}) == ()
    assert refused(lambda: commands.update_contract(state, "x", {})).status == 404


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"account_type": "gold"}, "account_type"),
        ({"billing_email": "nobody"}, "billing_email"),
        ({"billing_email": "a@b\x00"}, "billing_email"),
    ],
)
def test_wrong_customers_are_refused(values: dict[str, Any], field: str) -> None:
    whole = {"name": "Acme", "account_type": "paid", **values}
    error = refused(lambda: commands.create_customer("cu", whole))
    assert [e.property for e in error.errors] == [field]


def test_a_customer_with_services_is_not_deleted() -> None:
    error = refused(lambda: commands.delete_customer(customer(), 2))
    assert (error.status, error.code) == (409, "customer_has_services")
    state = customer(sup="superuser")
    state = do(state, commands.create_token(state, "sup", new(), OPERATOR, NOW))
    state = do(state, commands.delete_customer(state, 0))
    assert snapshots.of_customer(state, 2).deleted_at is not None
    assert state.tokens["t"].revoked_ms is not None


def test_an_expiry_in_the_past_is_refused() -> None:
    state = customer(eng="engineer")
    error = refused(lambda: commands.create_token(state, "eng", new("t", NOW), OPERATOR, NOW))
    assert [e.property for e in error.errors] == ["expires_at"]


def test_others_tokens_are_not_there_for_an_engineer() -> None:
    state = customer(eng="engineer", usr="user")
    state = do(state, commands.create_token(state, "usr", new(), OPERATOR, NOW))
    call = lambda: commands.revoke_token(state, "t", Asking("engineer", "eng"))  # noqa: E731
    assert refused(call).status == 404
    state = do(state, commands.revoke_token(state, "t", Asking("user", "usr")))
    assert commands.revoke_token(state, "t", OPERATOR) == ()


def test_ended_tokens_are_forgotten_in_the_end() -> None:
    state = customer(eng="engineer")
    state = do(state, commands.create_token(state, "eng", new("old"), OPERATOR, NOW))
    state = do(state, commands.revoke_token(state, "old", OPERATOR), NOW + 1)
    later = NOW + 2 + FORGET_TOKENS_AFTER_MS
    events = commands.create_token(state, "eng", new("new"), OPERATOR, later)
    assert "old" in do(state, events, later - 2).tokens
    assert list(do(state, events, later).tokens) == ["new"]


def test_the_last_operator_token_stays() -> None:
    state = Operators()
    for token_id in ("one", "two"):
        for event in commands.create_operator_token(state, new(token_id), NOW):
            state = fold_operators(state, event, NOW)
    for event in commands.revoke_operator_token(state, "one", NOW):
        state = fold_operators(state, event, NOW)
    told = snapshots.of_operator_tokens(state, 3)
    assert told["one"].revoked_at is not None
    assert (told["two"].role, told["two"].customer_id) == ("operator", None)
    assert refused(lambda: commands.revoke_operator_token(state, "two", NOW)).code == (
        "last_operator_token"
    )


def test_hashes_stay_out_of_the_history() -> None:
    state = customer(eng="engineer")
    (event,) = commands.create_token(state, "eng", new(), OPERATOR, NOW)
    change = history.change(state, event, do(state, [event]))
    assert (change.object, change.name, change.before) == ("token", "t", None)
    assert "hash-t" not in encode(change)


ids = st.sampled_from(["a", "b", "c"])
roles = st.sampled_from(commands.ROLES)


class AnyInterleaving(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state: Customer | None = None
        self.recorded: list[tuple[Any, int]] = []
        self.had_superuser = False

    def record(self, events: Any) -> None:
        for event in events:
            before, at_ms = self.state, NOW + len(self.recorded)
            self.state = fold(self.state, event, at_ms)
            history.change(before, event, self.state)
            self.recorded.append((event, at_ms))

    def command(self, call: Any) -> None:
        try:
            self.record(call(self.state))
        except ApiError as error:
            assert 400 <= error.status < 500

    @initialize()
    def create(self) -> None:
        self.record(commands.create_customer("cu", {"name": "A", "account_type": "trial"}))
        for user, role in (("a", "superuser"), ("b", "engineer")):
            self.record(commands.create_user(customer(), user, {"login": user, "role": role}))

    @rule(user=ids, role=roles)
    def save_user(self, user: str, role: str) -> None:
        assert self.state is not None
        values = {"login": user, "role": role}
        save = commands.update_user if user in self.state.users else commands.create_user
        self.command(lambda s: save(s, user, values))

    @rule(user=ids)
    def delete_user(self, user: str) -> None:
        self.command(lambda s: commands.delete_user(s, user))

    @rule(user=ids, token=ids)
    def create_token(self, user: str, token: str) -> None:
        assert self.state is not None
        if token not in self.state.tokens:
            self.command(lambda s: commands.create_token(s, user, new(token), OPERATOR, NOW))

    @rule(user=ids, token=ids)
    def sign_in(self, user: str, token: str) -> None:
        assert self.state is not None
        if token not in self.state.tokens:
            self.command(lambda s: commands.create_session(s, user, new(token, NOW + 9), NOW))

    @rule(user=ids)
    def set_password(self, user: str) -> None:
        self.command(lambda s: commands.set_password(s, user, "a long password", OPERATOR))

    @rule(token=ids)
    def revoke(self, token: str) -> None:
        self.command(lambda s: commands.revoke_token(s, token, OPERATOR))

    @rule(contract=ids, ends=st.none() | st.integers(0, 9))
    def contract(self, contract: str, ends: int | None) -> None:
        self.command(lambda s: commands.create_contract(s, contract, "websockets", 4, ends))

    @rule(suspended=st.booleans())
    def suspend(self, suspended: bool) -> None:
        self.command(lambda s: commands.update_customer(s, {"suspended": suspended}))

    @invariant()
    def the_state_is_the_fold_of_the_stored_events(self) -> None:
        stored = [(CUSTOMER.events.decode(encode(e)), at) for e, at in self.recorded]
        assert CUSTOMER.folded(stored) == self.state

    @invariant()
    def a_token_in_force_has_a_user(self) -> None:
        if self.state is not None:
            for token in self.state.tokens.values():
                assert token.revoked_ms is not None or token.user_id in self.state.users

    @invariant()
    def a_customer_that_had_a_superuser_keeps_one(self) -> None:
        users = self.state.users.values() if self.state else ()
        has = any(u.role == "superuser" for u in users)
        assert has or not self.had_superuser
        self.had_superuser = has


AnyInterleaving.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestAnyInterleaving = AnyInterleaving.TestCase
