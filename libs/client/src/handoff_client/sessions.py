"""`/v1/sessions` and passwords: how a person signs in and out."""

from msgspec import UNSET, UnsetType

from handoff_client import tokens
from handoff_client.answer import Answer, Instant, json_of, nothing
from handoff_client.call import Call, Repeat, call


class SessionUser(Answer, frozen=True, kw_only=True):
    id: str
    login: str
    name: str
    role: str


class SessionCustomer(Answer, frozen=True, kw_only=True):
    id: str
    name: str


class Session(Answer, frozen=True, kw_only=True):
    """access_token: a token that ends at `expires_at`, shown this once."""

    access_token: str
    token_id: str
    expires_at: Instant
    user: SessionUser
    customer: SessionCustomer


def create(login: str, password: str) -> Call[Session]:
    """Sign in. Sent without a token, and once: a repeat would make another session. Unauthorized
    where login and password do not belong together; RateLimited after too many that did not."""
    return call(
        "POST",
        "/v1/sessions",
        json_of(Session),
        body={"login": login, "password": password},
        repeat=Repeat.NEVER,
        anonymous=True,
    )


def end() -> Call[None]:
    """Sign out: revoke the token that this is."""
    return tokens.revoke_self()


def set_password(
    user_id: str, password: str, *, current_password: str | UnsetType = UNSET
) -> Call[None]:
    """Set one's own, with `current_password` where there is one; as a superuser, that of any user
    of the customer. The user's sessions end, the one that asks too, so it is sent once."""
    body = {"password": password, "current_password": current_password}
    return call(
        "PUT",
        "/v1/users/{user_id}/password",
        nothing,
        body=body,
        repeat=Repeat.NEVER,
        user_id=user_id,
    )
