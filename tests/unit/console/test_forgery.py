"""Which writing requests are taken for our own."""

import pytest

from handoff_console import forgery

HEADERS = {"host": "console.example.com", "origin": "https://console.example.com"}


def session() -> dict[str, str]:
    held: dict[str, str] = {}
    forgery.token_of(held)
    return held


def test_a_form_of_our_own_page_is_taken() -> None:
    held = session()
    given = forgery.token_of(held)
    assert not forgery.is_forged(held, HEADERS, given)
    assert not forgery.is_forged(held, HEADERS | {"sec-fetch-site": "same-origin"}, given)
    assert not forgery.is_forged(held, {"host": "console.example.com"}, given)


@pytest.mark.parametrize("given", [None, "", "x" * 43, "é"])
def test_a_wrong_token_is_not(given: str | None) -> None:
    assert forgery.is_forged(session(), HEADERS, given)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://console.example.com:8443"},
    ],
)
def test_what_the_browser_says_of_another_site_is_believed(headers: dict[str, str]) -> None:
    held = session()
    assert forgery.is_forged(held, HEADERS | headers, forgery.token_of(held))


def test_a_session_without_a_token_takes_nothing() -> None:
    assert forgery.is_forged({}, HEADERS, "")
    assert forgery.is_forged({}, HEADERS, "x")


def test_tokens_are_each_session_s_own() -> None:
    assert forgery.token_of({}) != forgery.token_of({})
    held = session()
    assert forgery.token_of(held) == forgery.token_of(held)
