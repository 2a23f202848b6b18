"""What a session cookie is believed to say."""

import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_client.tokens import Token
from handoff_common.access import Permission, Role
from handoff_console.sign_on import minutes_of, safe_path, session_end
from handoff_console.viewer import SESSION_KEY, TOKEN_SECONDS, Viewer, viewer_of

NOW = 1_700_000_000_000
SOMEONE = Viewer(
    "t" * 32, "someone@example.com", Role.ENGINEER, "global", "customer", "Example", NOW + 1
)


def test_what_was_packed_is_read_again() -> None:
    assert viewer_of({SESSION_KEY: SOMEONE.packed()}, NOW) == SOMEONE
    operator = SOMEONE._replace(role=Role.OPERATOR, customer_id=None)
    assert viewer_of({SESSION_KEY: operator.packed()}, NOW) == operator


@pytest.mark.parametrize(
    "change",
    [
        {"role": "king"},
        {"role": None},
        {"scope": "everything"},
        {"token": 1},
        {"login": None},
        {"customer_id": 7},
        {"more": 1},
        {"until_ms": None},
        {"until_ms": str(NOW + 1)},
        {"until_ms": True},
    ],
)
def test_anything_else_is_nobody(change: dict[str, Any]) -> None:
    assert viewer_of({SESSION_KEY: SOMEONE.packed() | change}, NOW) is None


def test_a_session_ends_however_much_it_is_used() -> None:
    """What changes in it makes the cookie a new one, with all the time of a new one."""
    held = {SESSION_KEY: SOMEONE._replace(customer_name="Another").packed()}
    assert viewer_of(held, SOMEONE.until_ms - 1) is not None
    assert viewer_of(held, SOMEONE.until_ms) is None


def test_no_session_is_nobody() -> None:
    assert viewer_of({}, NOW) is None
    assert viewer_of({SESSION_KEY: "text"}, NOW) is None
    packed = SOMEONE.packed()
    del packed["token"]
    assert viewer_of({SESSION_KEY: packed}, NOW) is None


def test_a_token_that_only_reads_is_offered_nothing_that_writes() -> None:
    assert SOMEONE.can(Permission.TOGGLE_PRODUCTS)
    reader = SOMEONE._replace(scope="global:read")
    assert reader.can(Permission.READ_CONFIG)
    assert not reader.can(Permission.TOGGLE_PRODUCTS)
    assert not SOMEONE.can(Permission.READ_BILLING)


@pytest.mark.parametrize(
    ("role", "scope", "needs", "said"),
    [
        (Role.SUPERUSER, "global:read", Permission.TOGGLE_PRODUCTS, "token only reads"),
        (Role.OPERATOR, "global:read", Permission.OPERATE, "token only reads"),
        (Role.SUPERUSER, "global", Permission.OPERATE, "operators only"),
        (Role.USER, "global:read", Permission.WRITE_CONFIG, "Your role (user)"),
    ],
)
def test_who_may_not_is_told_what_stands_against_it(
    role: Role, scope: Any, needs: Permission, said: str
) -> None:
    viewer = SOMEONE._replace(role=role, scope=scope)
    assert not viewer.can(needs)
    assert said in viewer.why_not(needs)


@pytest.mark.parametrize(
    ("session", "hours", "ends_after"),
    [(True, 168, 168), (True, 1, 1), (False, None, 12), (False, 48, 12), (False, 2, 2)],
)
def test_a_session_ends_with_its_token(session: bool, hours: int | None, ends_after: int) -> None:
    now = datetime.fromtimestamp(NOW // 1_000, UTC)
    expires = None if hours is None else now + timedelta(hours=hours)
    token = Token(
        id="t", name="", scope="global", session=session, created_at=now, expires_at=expires
    )
    assert TOKEN_SECONDS == 12 * 3_600
    assert session_end(token, NOW) == NOW + ends_after * 3_600_000


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "", "a"]
)
def test_nobody_is_sent_to_another_site(path: str) -> None:
    assert safe_path(path) == "/"


@given(st.text(alphabet=string.printable, max_size=40))
def test_where_one_is_sent_is_a_path(path: str) -> None:
    found = safe_path(path)
    assert found.startswith("/") and not found.startswith(("//", "/\\"))
    assert "\n" not in found and "\r" not in found


def test_a_path_of_ours_is_kept() -> None:
    assert safe_path("/connections?state=open") == "/connections?state=open"


def test_waiting_times_in_words() -> None:
    assert minutes_of(None) == "a few minutes"
    assert minutes_of(5) == "a minute"
    assert minutes_of(61) == "2 minutes"
