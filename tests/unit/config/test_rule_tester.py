"""The rule tester: how a request is described, what of it is refused, what is said of the rules."""

from typing import Any

import pytest

from handoff_common.errors import ApiError
from handoff_common.matching import Route
from handoff_common.request_head import HEAD_MAX
from handoff_config.backends import Backend
from handoff_config.rule_tester import Outcome, Refusal, Request, Trial, outcome, request_of
from handoff_config.services import Domain, Rule, Version

BACKENDS = {name: Backend(name, address=f"{name}.test") for name in ("main", "other")}
VERSION = Version(
    7,
    domains={name.lower(): Domain(name) for name in ("Chat.example.com", "*.example.com")},
    backends=BACKENDS,
    rules={
        rule.name: rule
        for rule in (
            Rule("rest", "main", priority=900),
            Rule("rooms", "other", path_prefix="/r/"),
            Rule("lobby", "gone", path_pattern="/l*", priority=50),
        )
    },
)


def ask(url: str, *headers: tuple[str, str], subprotocols: Any = ()) -> Request:
    return request_of(url, headers, subprotocols)


def said(version: Version, url: str) -> Outcome:
    return outcome(version, ask(url))


def problems(*given: Any) -> dict[str, str]:
    with pytest.raises(ApiError) as caught:
        request_of(*given)
    assert caught.value.status == 422
    return {error.property: error.reason for error in caught.value.errors}


def test_a_request_is_read_as_the_edge_reads_its_head() -> None:
    request = ask(
        "WSS://Chat.Example.com.:8443/a%20b?x=1+2&flag",
        ("X-Team", " \tblue "),
        ("Sec-WebSocket-Protocol", "v1"),
        subprotocols=["v2", "v3"],
    )
    assert (request.host, request.path) == ("chat.example.com", "/a%20b")
    assert request.parameters == [("x", "1 2"), ("flag", "")]
    assert request.subprotocols == ("v1", "v2", "v3")
    assert ("x-team", "blue") in request.fields
    assert ("host", "Chat.Example.com.:8443") in request.fields


@pytest.mark.parametrize(
    ("url", "path"), [("ws://a.test", "/"), ("ws://a.test?x=1", "/"), ("ws://a.test/?x", "/")]
)
def test_a_url_without_a_path_asks_for_the_root(url: str, path: str) -> None:
    assert ask(url).path == path


def test_what_every_upgrade_has_is_there_unless_it_is_given() -> None:
    named = [name for name, _ in ask("ws://a.test").fields]
    assert {"upgrade", "connection", "sec-websocket-key", "sec-websocket-version"} <= set(named)
    assert "sec-websocket-protocol" not in named
    fields = ask("ws://a.test", ("Connection", "keep-alive, Upgrade")).fields
    assert [v for name, v in fields if name == "connection"] == ["keep-alive, Upgrade"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("", "ws:// or wss://"),
        ("chat.example.com/", "ws:// or wss://"),
        ("https://chat.example.com/", "ws:// or wss://"),
        ("wss:chat.example.com", "ws:// or wss://"),
        (" wss://chat.example.com/", "ws:// or wss://"),
        ("wss:///rooms", "a host name"),
        ("wss://:443/", "a host name"),
        ("wss://eve@chat.example.com/", "a host name"),
        ("wss://chat.example.com:99999/", "a host name"),
        ("wss://[::1/", "a host name"),
        ("wss://chät.example.com/", "a host name"),
        ("wss://chat.example.com/a b", "percent-encoded"),
        ("wss://chat.example.com/é", "percent-encoded"),
        ("wss://chat.example.com/#top", "percent-encoded"),
        ("wss://chat.example.com/\n", "percent-encoded"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_allowed(url: str, allowed: str) -> None:
    found = problems(url, [], [])
    assert set(found) == {"url"}
    assert repr(url) in found["url"] and allowed in found["url"]


def test_every_wrong_field_is_named() -> None:
    headers = [("X y", "1"), ("Host", "a"), ("X", "a\r\nb"), ("Y", "日"), ("Z", "é")]
    assert set(problems("http://a.test", headers, ["ok", "a,b", ""])) == {
        "url",
        "headers.0.0",
        "headers.1.0",
        "headers.2.1",
        "headers.3.1",
        "subprotocols.1",
        "subprotocols.2",
    }


def test_a_request_may_be_as_long_as_a_head_and_no_longer() -> None:
    bare = ask("ws://a.test")
    lines = sum(len(f"{name}: {value}\r\n") for name, value in bare.fields)
    room = HEAD_MAX - len("GET / HTTP/1.1\r\n\r\n") - lines
    ask("ws://a.test/" + "a" * room)
    assert set(problems("ws://a.test/" + "a" * (room + 1), [], [])) == {"url"}
    assert set(problems("ws://a.test/", [("x", "a" * room)], [])) == {"headers"}
    assert set(problems("ws://a.test/", [], ["a" * 255] * 80)) == {"subprotocols"}


def test_the_rules_are_tried_in_their_order_up_to_the_one_that_matches() -> None:
    found = said(VERSION, "wss://chat.example.com/r/1")
    assert found.domain == "Chat.example.com"
    assert isinstance(found.found, Route)
    assert (found.found.rule, found.found.backend.name) == ("rooms", "other")
    assert found.tried == (Trial("lobby", "path_pattern"), Trial("rooms", None))


def test_without_rules_the_only_backend_takes_all() -> None:
    alone = Version(1, domains=VERSION.domains, backends={"main": BACKENDS["main"]})
    found = said(alone, "wss://x.example.com/")
    assert isinstance(found.found, Route)
    assert (found.domain, found.found.rule, found.tried) == ("*.example.com", None, ())


def test_the_refusals_say_why() -> None:
    elsewhere = said(VERSION, "wss://example.com/")
    assert isinstance(elsewhere.found, Refusal)
    assert (elsewhere.domain, elsewhere.found.code, elsewhere.tried) == (None, "unknown_domain", ())
    assert "'example.com'" in elsewhere.found.text and "7" in elsewhere.found.text
    dangling = said(VERSION, "wss://chat.example.com/lobby")
    assert isinstance(dangling.found, Refusal)
    assert dangling.found.code == "no_rule" and "'gone'" in dangling.found.text
    assert dangling.tried == (Trial("lobby", None),)
    undecided = said(Version(1, domains=VERSION.domains, backends=BACKENDS), "ws://a.example.com/")
    assert isinstance(undecided.found, Refusal)
    assert undecided.found.code == "no_rule" and "2 backends" in undecided.found.text
