"""A customer with its contracts, users and tokens, and the operators' tokens: state, events, fold.

Pure. `fold` and `fold_operators` never refuse: what may happen is decided in `account_commands`.
Instants are epoch milliseconds. A token's text is nowhere here, only its SHA-256; of a password
there is only when it was set: its hash is in no event (docs/adr/0016-password-hashes.md).
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from handoff_common.instants import rfc3339

AccountType = Literal["trial", "paid"]
UserRole = Literal["superuser", "engineer", "billing", "user"]
Scope = Literal["global", "global:read"]

FORGET_TOKENS_AFTER_MS = 30 * 86_400_000
"""A token that was revoked or expired this long ago leaves the state when the next one is made, so
that short-lived tokens do not pile up. Events keep it for ever."""
FORGET_SESSIONS_AFTER_MS = 86_400_000
"""The same for sessions, of which a user has a new one each day."""

# --- State -------------------------------------------------------------------------------------


class Contract(Struct, frozen=True, omit_defaults=True):
    """In force for `starts_ms <= instant < ends_ms`; `ends_ms` None is open-ended."""

    contract_id: str
    product: str
    starts_ms: int
    ends_ms: int | None = None
    created_ms: int = 0


class User(Struct, frozen=True, omit_defaults=True):
    user_id: str
    login: str
    name: str
    role: UserRole
    created_ms: int = 0
    updated_ms: int = 0
    password_set_ms: int | None = None
    """None: no password, so no signing in."""


class Token(Struct, frozen=True, omit_defaults=True):
    """`user_id` None: an operator's. session: made by signing in."""

    token_id: str
    sha256: str
    user_id: str | None = None
    name: str = ""
    scope: Scope = "global"
    created_ms: int = 0
    expires_ms: int | None = None
    revoked_ms: int | None = None
    session: bool = False

    def ended_ms(self) -> int | None:
        ends = [ms for ms in (self.expires_ms, self.revoked_ms) if ms is not None]
        return min(ends, default=None)

    def in_force(self, at_ms: int) -> bool:
        ended = self.ended_ms()
        return ended is None or at_ms < ended


class Customer(Struct, frozen=True, omit_defaults=True):
    customer_id: str
    name: str
    account_type: AccountType
    billing_email: str = ""
    suspended: bool = False
    contracts: dict[str, Contract] = {}
    users: dict[str, User] = {}
    tokens: dict[str, Token] = {}
    created_ms: int = 0
    updated_ms: int = 0
    deleted_ms: int | None = None


class Operators(Struct, frozen=True, omit_defaults=True):
    """The one stream of those who run the deployment."""

    tokens: dict[str, Token] = {}


# --- Events ------------------------------------------------------------------------------------


class AccountEvent(Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """Root of the events of `customer/<id>` and `operators` streams."""


class CustomerCreated(AccountEvent, frozen=True, tag="customer.created"):
    customer_id: str
    name: str
    account_type: AccountType
    billing_email: str = ""


class CustomerUpdated(AccountEvent, frozen=True, tag="customer.updated"):
    name: str
    account_type: AccountType
    billing_email: str
    suspended: bool


class CustomerDeleted(AccountEvent, frozen=True, tag="customer.deleted"):
    pass


class ContractSaved(AccountEvent, frozen=True, tag="contract.saved"):
    contract: Contract


class UserSaved(AccountEvent, frozen=True, tag="user.saved"):
    user: User


class UserDeleted(AccountEvent, frozen=True, tag="user.deleted"):
    user_id: str


class PasswordSet(AccountEvent, frozen=True, tag="user.password_set"):
    """That it was set, and by whom; never the password nor its hash. Ends the user's sessions."""

    user_id: str


class TokenCreated(AccountEvent, frozen=True, tag="token.created"):
    token: Token


class TokenRevoked(AccountEvent, frozen=True, tag="token.revoked"):
    token_id: str


AnyCustomerEvent = (
    CustomerCreated
    | CustomerUpdated
    | CustomerDeleted
    | ContractSaved
    | UserSaved
    | UserDeleted
    | PasswordSet
    | TokenCreated
    | TokenRevoked
)
AnyOperatorsEvent = TokenCreated | TokenRevoked


# --- Fold --------------------------------------------------------------------------------------


def fold(state: Customer | None, event: AnyCustomerEvent, at_ms: int) -> Customer:
    """The state after the event; `state` is None for the first event of a stream only."""
    if isinstance(event, CustomerCreated):
        return Customer(
            customer_id=event.customer_id,
            name=event.name,
            account_type=event.account_type,
            billing_email=event.billing_email,
            created_ms=at_ms,
            updated_ms=at_ms,
        )
    if state is None:
        raise ValueError(f"a customer's first event is {type(event).__name__}")
    match event:
        case CustomerUpdated(
            name=name, account_type=account_type, billing_email=email, suspended=suspended
        ):
            return replace(
                state,
                name=name,
                account_type=account_type,
                billing_email=email,
                suspended=suspended,
                updated_ms=at_ms,
            )
        case CustomerDeleted():
            return replace(
                state,
                users={},
                tokens={k: _revoked(t, at_ms) for k, t in state.tokens.items()},
                deleted_ms=at_ms,
                updated_ms=at_ms,
            )
        case ContractSaved(contract=contract):
            known = state.contracts.get(contract.contract_id)
            saved = replace(contract, created_ms=known.created_ms if known else at_ms)
            return replace(state, contracts={**state.contracts, contract.contract_id: saved})
        case UserSaved(user=user):
            was = state.users.get(user.user_id)
            kept = replace(
                user,
                created_ms=was.created_ms if was else at_ms,
                updated_ms=at_ms,
                password_set_ms=was.password_set_ms if was else None,
            )
            return replace(state, users={**state.users, user.user_id: kept})
        case PasswordSet(user_id=user_id):
            user = replace(state.users[user_id], password_set_ms=at_ms)
            return replace(
                state,
                users={**state.users, user_id: user},
                tokens={
                    k: _revoked(t, at_ms) if t.session and t.user_id == user_id else t
                    for k, t in state.tokens.items()
                },
            )
        case UserDeleted(user_id=user_id):
            return replace(
                state,
                users={k: u for k, u in state.users.items() if k != user_id},
                tokens={
                    k: _revoked(t, at_ms) if t.user_id == user_id else t
                    for k, t in state.tokens.items()
                },
            )
        case TokenCreated() | TokenRevoked():
            return replace(state, tokens=_tokens(state.tokens, event, at_ms))


def fold_operators(state: Operators | None, event: AnyOperatorsEvent, at_ms: int) -> Operators:
    return Operators(_tokens(state.tokens if state else {}, event, at_ms))


def _tokens(tokens: Mapping[str, Token], event: AnyOperatorsEvent, at_ms: int) -> dict[str, Token]:
    if isinstance(event, TokenRevoked):
        return {k: _revoked(t, at_ms) if k == event.token_id else t for k, t in tokens.items()}
    kept = {
        k: t
        for k, t in tokens.items()
        if (ended := t.ended_ms()) is None
        or ended > at_ms - (FORGET_SESSIONS_AFTER_MS if t.session else FORGET_TOKENS_AFTER_MS)
    }
    return {**kept, event.token.token_id: replace(event.token, created_ms=at_ms)}


def _revoked(token: Token, at_ms: int) -> Token:
    return token if token.revoked_ms is not None else replace(token, revoked_ms=at_ms)


# --- Entitlement -------------------------------------------------------------------------------


class Entitlement(NamedTuple):
    """`lacking` says what is missing, as a sentence's part; None: entitled."""

    lacking: str | None


def entitlement(customer: Customer | None, product: str, at_ms: int) -> Entitlement:
    """A paid account that is not suspended, with a contract for the product in force."""
    if customer is None or customer.deleted_ms is not None:
        return Entitlement("the customer does not exist any more")
    if customer.account_type != "paid":
        return Entitlement(
            f"{product} needs a paid account, and customer {customer.name!r} has a "
            f"{customer.account_type} account"
        )
    if customer.suspended:
        return Entitlement(f"the account of customer {customer.name!r} is suspended")
    contracts = [c for c in customer.contracts.values() if c.product == product]
    if any(c.starts_ms <= at_ms and (c.ends_ms is None or at_ms < c.ends_ms) for c in contracts):
        return Entitlement(None)
    return Entitlement(f"no contract for {product} is in force" + _nearest(contracts, at_ms))


def _nearest(contracts: Iterable[Contract], at_ms: int) -> str:
    later = [c.starts_ms for c in contracts if c.starts_ms > at_ms]
    if later:
        return f" (the next one starts at {rfc3339(min(later))})"
    ended = [c.ends_ms for c in contracts if c.ends_ms is not None]
    return f" (the last one ended at {rfc3339(max(ended))})" if ended else ""
