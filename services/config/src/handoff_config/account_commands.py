"""What may be done to a customer, its contracts, users and tokens: state in, events out.

Pure. Ids, token hashes and the time are arguments. A state of None, or deleted, is answered 404.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from handoff_common.errors import FieldError, conflict, forbidden, not_found
from handoff_config import errors, fields, passwords
from handoff_config.contracts import (
    AnyCustomerEvent,
    AnyOperatorsEvent,
    Contract,
    ContractSaved,
    Customer,
    CustomerCreated,
    CustomerDeleted,
    CustomerUpdated,
    Operators,
    PasswordSet,
    Token,
    TokenCreated,
    TokenRevoked,
    User,
    UserDeleted,
    UserSaved,
)

Events = Sequence[AnyCustomerEvent]
Values = Mapping[str, Any]

ACCOUNT_TYPES = ("trial", "paid")
ROLES = ("superuser", "engineer", "billing", "user")
SCOPES = ("global", "global:read")
MAX_SESSIONS = 50
"""Sessions in force of one user; another one ends the oldest."""
LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999."""


class Asking(NamedTuple):
    """Who asks, as far as these rules look at it."""

    role: str
    user_id: str | None


def live(state: Customer | None, customer_id: str) -> Customer:
    if state is None or state.deleted_ms is not None:
        raise not_found("customer", customer_id)
    return state


def user_of(customer: Customer, user_id: str) -> User:
    user = customer.users.get(user_id)
    if user is None:
        raise not_found("user", user_id)
    return user


def token_of(holder: Customer | Operators, token_id: str) -> Token:
    token = holder.tokens.get(token_id)
    if token is None:
        raise not_found("token", token_id)
    return token


# --- Customers and contracts -------------------------------------------------------------------


def create_customer(customer_id: str, values: Values) -> Events:
    email = values.get("billing_email") or ""
    fields.require(
        [
            fields.name("name", values["name"]),
            fields.one_of("account_type", values["account_type"], ACCOUNT_TYPES),
            fields.email("billing_email", email) if email else None,
        ]
    )
    return (CustomerCreated(customer_id, values["name"], values["account_type"], email),)


def update_customer(customer: Customer, values: Values) -> Events:
    """Fields left out stay."""
    event = CustomerUpdated(
        name=values.get("name", customer.name),
        account_type=values.get("account_type", customer.account_type),
        billing_email=values.get("billing_email", customer.billing_email),
        suspended=values.get("suspended", customer.suspended),
    )
    fields.require(
        [
            fields.name("name", event.name),
            fields.one_of("account_type", event.account_type, ACCOUNT_TYPES),
            fields.email("billing_email", event.billing_email) if event.billing_email else None,
        ]
    )
    present = CustomerUpdated(
        customer.name, customer.account_type, customer.billing_email, customer.suspended
    )
    return () if event == present else (event,)


def delete_customer(customer: Customer, services: int) -> Events:
    """`services`: how many it still has."""
    if services:
        raise conflict(
            "customer_has_services",
            f"customer {customer.customer_id} still has {services} services; delete them first",
        )
    return (CustomerDeleted(),)


def create_contract(
    customer: Customer, contract_id: str, product: str, starts_ms: int, ends_ms: int | None
) -> Events:
    contract = Contract(contract_id, product, starts_ms, ends_ms)
    fields.require([fields.product("product", product), *_period(contract)])
    return (ContractSaved(contract),)


def update_contract(customer: Customer, contract_id: str, changes: Values) -> Events:
    """`changes`: `starts_ms`, `ends_ms`; what is left out stays. A contract is ended by its
    `ends_ms`, never deleted."""
    contract = contract_of(customer, contract_id)
    saved = replace(contract, **changes)
    fields.require(_period(saved))
    return () if saved == contract else (ContractSaved(saved),)


def contract_of(customer: Customer, contract_id: str) -> Contract:
    contract = customer.contracts.get(contract_id)
    if contract is None:
        raise not_found("contract", contract_id)
    return contract


def _period(contract: Contract) -> list[FieldError | None]:
    problems = []
    for field, value in (("starts_at", contract.starts_ms), ("ends_at", contract.ends_ms)):
        if value is not None and not 0 <= value <= LATEST_MS:
            problems.append(fields.refused(field, value, "an instant from 1970 to 9999"))
    if contract.ends_ms is not None and contract.ends_ms <= contract.starts_ms:
        problems.append(FieldError("ends_at", "is not after starts_at; allowed: later, or null"))
    return [*problems]


# --- Users -------------------------------------------------------------------------------------


def create_user(customer: Customer, user_id: str, values: Values) -> Events:
    """`values` may hold a `password`; that there is one is an event, what it is is not."""
    user = User(user_id, values["login"], values.get("name") or "", values["role"])
    password = values.get("password")
    wrong = None if password is None else passwords.problem("password", password, user.login)
    fields.require([*_user_problems(user), wrong])
    saved = UserSaved(user)
    return (saved,) if password is None else (saved, PasswordSet(user_id))


def update_user(customer: Customer, user_id: str, values: Values) -> Events:
    user = user_of(customer, user_id)
    given = {k: values[k] for k in ("login", "name", "role") if values.get(k) is not None}
    saved = replace(user, **given)
    fields.require(_user_problems(saved))
    if user.role == "superuser" != saved.role:
        _keep_a_superuser(customer, user)
    return () if saved == user else (UserSaved(saved),)


def delete_user(customer: Customer, user_id: str) -> Events:
    """Its tokens are revoked with it."""
    user = user_of(customer, user_id)
    if user.role == "superuser":
        _keep_a_superuser(customer, user)
    return (UserDeleted(user_id),)


def set_password(customer: Customer, user_id: str, password: str, asking: Asking) -> Events:
    """One's own, or, for a superuser or an operator, that of any user of the customer. The user's
    sessions end. That one's own was confirmed first is for the caller to see to."""
    user = user_of(customer, user_id)
    if asking.user_id != user_id and asking.role not in ("superuser", "operator"):
        raise forbidden(
            f"role {asking.role!r} may set its own password only; allowed for other users: "
            "superuser, operator"
        )
    fields.require([passwords.problem("password", password, user.login)])
    return (PasswordSet(user_id),)


def _keep_a_superuser(customer: Customer, user: User) -> None:
    if sum(u.role == "superuser" for u in customer.users.values()) == 1:
        raise conflict(
            "last_superuser",
            f"user {user.login!r} is the last superuser of the customer; make another one first",
        )


def _user_problems(user: User) -> list[FieldError | None]:
    return [
        fields.name("login", user.login),
        fields.text("name", user.name, longest=fields.MAX_NAME),
        fields.one_of("role", user.role, ROLES),
    ]


# --- Tokens ------------------------------------------------------------------------------------


class NewToken(NamedTuple):
    """What a token is made of; `sha256` is hex."""

    token_id: str
    sha256: str
    name: str
    scope: Literal["global", "global:read"]
    expires_ms: int | None


def _token(new: NewToken, user_id: str | None, now_ms: int, *, session: bool = False) -> Token:
    expires = new.expires_ms
    fields.require(
        [
            fields.text("name", new.name, longest=fields.MAX_NAME),
            fields.one_of("scope", new.scope, SCOPES),
            None
            if expires is None or now_ms < expires <= LATEST_MS
            else FieldError("expires_at", "is not in the future; allowed: a later instant or null"),
        ]
    )
    return Token(
        token_id=new.token_id,
        sha256=new.sha256,
        user_id=user_id,
        name=new.name,
        scope=new.scope,
        expires_ms=expires,
        session=session,
    )


def create_token(
    customer: Customer, user_id: str, new: NewToken, asking: Asking, now_ms: int
) -> Events:
    """One's own, or, for a superuser or an operator, that of any user of the customer."""
    user_of(customer, user_id)
    if asking.user_id != user_id and asking.role not in ("superuser", "operator"):
        raise forbidden(
            f"role {asking.role!r} may make tokens for itself only; allowed for other users: "
            "superuser, operator"
        )
    return (TokenCreated(_token(new, user_id, now_ms)),)


def create_session(
    state: Customer | None, user_id: str, new: NewToken, now_ms: int
) -> Sequence[AnyCustomerEvent]:
    """The token of a user who has shown its password. One who is gone by now is answered as if
    the password were wrong."""
    if state is None or user_id not in state.users:
        raise errors.sign_in_failed()
    sessions = sorted(
        (t for t in state.tokens.values() if t.session and t.user_id == user_id),
        key=lambda token: (token.created_ms, token.token_id),
    )
    in_force = [token for token in sessions if token.in_force(now_ms)]
    surplus = in_force[: max(0, len(in_force) + 1 - MAX_SESSIONS)]
    made = TokenCreated(_token(new, user_id, now_ms, session=True))
    return (*(TokenRevoked(token.token_id) for token in surplus), made)


def revoke_token(customer: Customer, token_id: str, asking: Asking) -> Events:
    """Revoking what is revoked is no event."""
    token = token_of(customer, token_id)
    if token.user_id != asking.user_id and asking.role not in ("superuser", "operator"):
        raise not_found("token", token_id)
    return () if token.revoked_ms is not None else (TokenRevoked(token_id),)


def create_operator_token(
    operators: Operators | None, new: NewToken, now_ms: int
) -> Sequence[AnyOperatorsEvent]:
    return (TokenCreated(_token(new, None, now_ms)),)


def revoke_operator_token(
    operators: Operators, token_id: str, now_ms: int
) -> Sequence[AnyOperatorsEvent]:
    """The last one in force cannot be revoked: nobody could make another."""
    token = token_of(operators, token_id)
    if not token.in_force(now_ms):
        return ()
    if sum(t.in_force(now_ms) for t in operators.tokens.values()) == 1:
        raise conflict(
            "last_operator_token", "this is the last operator token in force; make another first"
        )
    return (TokenRevoked(token_id),)
