"""Users: `/v1/users`, `/v1/customers/{id}/users` and `/current_user`."""

from typing import Literal

from msgspec import UNSET, UnsetType

from handoff_client.answer import Answer, Instant, json_of, nothing
from handoff_client.answer import listing as _listing
from handoff_client.call import Call, Listing, call

Role = Literal["superuser", "engineer", "billing", "user"]
_MANY = "/v1/customers/{customer_id}/users"
_ONE = "/v1/users/{user_id}"


class User(Answer, frozen=True, kw_only=True):
    """role: superuser, engineer, billing, user, or `operator`, who is no customer's and has no
    instants. password_set_at None: has no password, and cannot sign in."""

    id: str
    login: str
    name: str
    role: str
    customer_id: str | None = None
    password_set_at: Instant | None = None
    created_at: Instant | None
    updated_at: Instant | None


def current() -> Call[User]:
    """Whose token this is."""
    return call("GET", "/current_user", json_of(User))


def listing(customer_id: str, *, limit: int | None = None) -> Listing[User]:
    """In the order of their ids."""
    return _listing(_MANY, User, query={"limit": limit}, customer_id=customer_id)


def get(user_id: str) -> Call[User]:
    return call("GET", _ONE, json_of(User), user_id=user_id)


def create(
    customer_id: str,
    login: str,
    role: Role,
    *,
    name: str = "",
    password: str | UnsetType = UNSET,
) -> Call[User]:
    """login: unique in the whole deployment. Without a password it cannot sign in. For operators,
    and superusers of the customer."""
    body = {"login": login, "name": name, "role": role, "password": password}
    return call("POST", _MANY, json_of(User), body=body, customer_id=customer_id)


def change(
    user_id: str,
    *,
    login: str | UnsetType = UNSET,
    name: str | UnsetType = UNSET,
    role: Role | UnsetType = UNSET,
    if_match: str | None = None,
) -> Call[User]:
    """What is left out stays; a new role holds for its tokens at once."""
    body = {"login": login, "name": name, "role": role}
    return call("PATCH", _ONE, json_of(User), body=body, if_match=if_match, user_id=user_id)


def delete(user_id: str) -> Call[None]:
    """Its tokens are revoked."""
    return call("DELETE", _ONE, nothing, user_id=user_id)
