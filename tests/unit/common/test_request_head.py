"""The parts of a request head: hosts, targets and lists, as the edge reads them."""

from typing import NamedTuple

import pytest

from handoff_common.request_head import TARGET, host_name, listed, parameters_of, path_of, query_of


class Field(NamedTuple):
    name: str
    value: str


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example.:443", "a.example"),
        ("a.example:", "a.example"),
        ("[2001:DB8::1]:8080", "2001:db8::1"),
        ("", None),
        (":80", None),
        (".", None),
        ("a@b", None),
        ("a b", None),
        ("a:70000", None),
        ("a:8o", None),
        ("a:٣", None),
        ("é.example", None),
        ("[::1", None),
        ("[::1]x", None),
    ],
)
def test_a_host_is_a_name_or_address_with_an_optional_port(value: str, host: str | None) -> None:
    assert host_name(value) == host


def test_a_path_stays_as_presented_and_parameters_are_decoded() -> None:
    target = "/a%20b;v=1?x=%C3%A9+1&flag&x=2?3"
    assert TARGET.fullmatch(target.encode())
    assert (path_of(target), query_of(target)) == ("/a%20b;v=1", "x=%C3%A9+1&flag&x=2?3")
    assert parameters_of(target) == [("x", "é 1"), ("flag", ""), ("x", "2?3")]
    assert not TARGET.fullmatch(b"/a#b")


def test_a_list_runs_over_all_lines_of_its_name() -> None:
    fields = [Field("p", "a,\tb ,"), Field("q", "x"), Field("p", "c")]
    assert listed(fields, "p") == ["a", "b", "c"]
