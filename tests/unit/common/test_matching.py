"""Matching: the domain that takes a host, the rule that takes a request, and what did not hold."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.events import BackendSnapshot, NameValue, RuleSnapshot
from handoff_common.matching import (
    Condition,
    NoRoute,
    Route,
    domain_taking,
    glob_matches,
    route,
    unmet_condition,
)

A = BackendSnapshot(name="a", address="a.test", port=80)
B = BackendSnapshot(name="b", address="b.test", port=443)


class Field(NamedTuple):
    name: str
    value: str


class Request(NamedTuple):
    host: str = "chat.example.com"
    path: str = "/"
    fields: tuple[Field, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = ()


TEAM = Request(fields=(Field("x-team", "red"), Field("x-team", "blue")))
ROOM = Request(parameters=(("room", "c"), ("room", "a b"), ("flag", "")))


@pytest.mark.parametrize(
    ("conditions", "request_", "unmet"),
    [
        ({}, Request(), None),
        ({"host": "CHAT.example.com."}, Request(), None),
        ({"host": "*.example.com"}, Request(), None),
        ({"host": "*.example.com"}, Request(host="a.b.example.com"), "host"),
        ({"host": "*.example.com"}, Request(host="example.com"), "host"),
        ({"host": "other.example.com"}, Request(), "host"),
        ({"path_prefix": "/a"}, Request(path="/a/b"), None),
        ({"path_prefix": "/a"}, Request(path="/A"), "path_prefix"),
        ({"path_prefix": "/a b"}, Request(path="/a%20b"), "path_prefix"),
        ({"path_pattern": "/*/b"}, Request(path="/x/y/b"), None),
        ({"path_pattern": "/*/b"}, Request(path="/x/b/c"), "path_pattern"),
        ({"header": NameValue(name="X-Team", value="blue")}, TEAM, None),
        ({"header": NameValue(name="X-Team")}, TEAM, None),
        ({"header": NameValue(name="X-Team", value="Blue")}, TEAM, "header"),
        ({"header": NameValue(name="X-Team")}, Request(), "header"),
        ({"query": NameValue(name="room", value="a b")}, ROOM, None),
        ({"query": NameValue(name="flag")}, ROOM, None),
        ({"query": NameValue(name="Room")}, ROOM, "query"),
        ({"query": NameValue(name="flag", value="1")}, ROOM, "query"),
        ({"subprotocol": "v2"}, Request(subprotocols=("v1", "v2")), None),
        ({"subprotocol": "v2"}, Request(subprotocols=("v1",)), "subprotocol"),
        ({"path_prefix": "/a", "subprotocol": "v2"}, Request(path="/a"), "subprotocol"),
        ({"path_prefix": "/a", "subprotocol": "v2"}, Request(), "path_prefix"),
    ],
)
def test_the_first_condition_that_does_not_hold(
    conditions: dict[str, Any], request_: Request, unmet: Condition | None
) -> None:
    rule = RuleSnapshot(name="r", backend="a", **conditions)
    assert unmet_condition(rule, request_) == unmet


def test_the_first_rule_that_matches_names_the_backend() -> None:
    rules = (
        RuleSnapshot(name="one", path_prefix="/a", backend="a"),
        RuleSnapshot(name="two", backend="b"),
        RuleSnapshot(name="three", path_prefix="/a", backend="b"),
    )
    assert route(rules, (A, B), Request(path="/a")) == Route("one", A)
    assert route(rules, (A, B), Request(path="/b")) == Route("two", B)


def test_without_rules_the_only_backend_takes_all() -> None:
    assert route((), (A,), Request()) == Route(None, A)
    assert isinstance(route((), (), Request()), NoRoute)
    none = route((), (A, B), Request())
    assert isinstance(none, NoRoute) and "2 backends" in none.text


def test_a_rule_without_its_backend_ends_the_search() -> None:
    rules = (RuleSnapshot(name="r", backend="gone"), RuleSnapshot(name="s", backend="a"))
    none = route(rules, (A,), Request())
    assert isinstance(none, NoRoute) and "'gone'" in none.text


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("chat.example.com", "chat.example.com"),
        ("CHAT.example.com.", "chat.example.com"),
        ("other.example.com", "*.example.com"),
        ("a.b.example.com", None),
        ("example.com", None),
        ("localhost", None),
    ],
)
def test_the_domain_of_its_name_takes_a_host_before_a_wildcard(
    host: str, domain: str | None
) -> None:
    assert domain_taking(host, {"*.example.com", "chat.example.com", "*."}) == domain


GLOB = st.text(alphabet="ab*", max_size=8)


@settings(max_examples=300)
@given(GLOB, st.text(alphabet="ab", max_size=10))
def test_globs_mean_what_the_slow_definition_says(pattern: str, text: str) -> None:
    def slow(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return any(slow(p[1:], t[i:]) for i in range(len(t) + 1))
        return bool(t) and p[0] == t[0] and slow(p[1:], t[1:])

    assert glob_matches(pattern, text) == slow(pattern, text)
