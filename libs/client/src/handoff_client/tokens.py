"""Tokens: `/tokens`, `/v1/users/{id}/tokens`, `/customer/{id}/tokens`."""

from datetime import datetime
from typing import Literal

from handoff_client.answer import Answer, Instant, classic_listing, json_of, nothing
from handoff_client.answer import listing as _listing
from handoff_client.call import Call, Listing, Repeat, call

Scope = Literal["global", "global:read"]
_OF_USER = "/v1/users/{user_id}/tokens"


class Token(Answer, frozen=True, kw_only=True):
    """What is kept of a token, not its text. user_id, customer_id: None for an operator's.
    session: signing in
    made it. expires_at None: never."""

    id: str
    user_id: str | None = None
    customer_id: str | None = None
    name: str
    scope: str
    session: bool = False
    created_at: Instant
    expires_at: Instant | None = None


class NewToken(Token, frozen=True, kw_only=True):
    """access_token: its text, shown this once. None where the first answer to this call was lost
    and a repeat found the token made: revoke it by its id, and make another."""

    access_token: str | None = None


def get_self() -> Call[Token]:
    """The token that this is."""
    return call("GET", "/tokens/self", json_of(Token))


def revoke_self() -> Call[None]:
    """Revoke the token that this is. Sent once: a repeat would come without a token in force."""
    return call("DELETE", "/tokens/self", nothing, repeat=Repeat.NEVER)


def listing() -> Listing[Token]:
    """Those in force of the user whose token this is."""
    return classic_listing("/tokens", Token)


def of_user(user_id: str) -> Listing[Token]:
    """A user's, in force: one's own, or, for a superuser, of any user of the customer."""
    return _listing(_OF_USER, Token, user_id=user_id)


def of_customer(customer_id: str, *, per_page: int | None = None) -> Listing[Token]:
    """Every one in force of a customer; for superusers and operators."""
    query = {"per_page": per_page}
    return classic_listing(
        "/customer/{customer_id}/tokens", Token, query=query, customer_id=customer_id
    )


def get(token_id: str) -> Call[Token]:
    return call("GET", "/tokens/{token_id}", json_of(Token), token_id=token_id)


def create(
    *, name: str = "", scope: Scope = "global", expires_at: datetime | None = None
) -> Call[NewToken]:
    """One more for whom the asking token belongs to; an operator's makes an operator's."""
    body = {"name": name, "scope": scope, "expires_at": expires_at}
    return call("POST", "/tokens", json_of(NewToken), body=body)


def create_for(
    user_id: str, *, name: str = "", scope: Scope = "global", expires_at: datetime | None = None
) -> Call[NewToken]:
    """One more for a user: oneself, or, for a superuser, any user of the customer."""
    body = {"name": name, "scope": scope, "expires_at": expires_at}
    return call("POST", _OF_USER, json_of(NewToken), body=body, user_id=user_id)


def revoke(token_id: str) -> Call[None]:
    """It stops working everywhere within 2 s; revoked before is fine."""
    return call("DELETE", "/tokens/{token_id}", nothing, token_id=token_id)
