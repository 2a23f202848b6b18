"""Backends: the field table, defaults that are equal, the one address, and what is off default."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.errors import ApiError
from handoff_config.backends import BY_NAME, FIELDS, Backend, merged, off_default, shown

NAMES = {"name": "origin", "address": "origin.example.com"}
API_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 1000,
    "first_byte_timeout": 15000,
    "fetch_timeout": 0,
    "between_bytes_timeout": 10000,
    "max_conn": 200,
    "weight": 100,
    "error_threshold": 0,
    "auto_loadbalance": False,
    "ssl_check_cert": True,
    "request_condition": "",
    "prefer_ipv6": False,
    "max_use": 0,
    "max_lifetime": 0,
    "ssl_ca_cert": None,
    "ssl_cert_hostname": None,
    "ssl_sni_hostname": None,
    "ssl_hostname": None,
    "ssl_ciphers": None,
    "ssl_client_cert": None,
    "ssl_client_key": None,
    "client_cert": None,
    "min_tls_version": None,
    "max_tls_version": None,
    "shield": None,
    "healthcheck": None,
    "share_key": None,
    "keepalive_time": None,
    "tcp_keepalive_enable": None,
    "tcp_keepalive_interval": None,
    "tcp_keepalive_probes": None,
    "tcp_keepalive_time": None,
}
FREE = {
    "name",
    "address",
    "hostname",
    "ipv4",
    "ipv6",
    "port",
    "use_ssl",
    "override_host",
    "comment",
}


def another(name: str) -> st.SearchStrategy[Any]:
    """Allowed values of a field that are not its default."""
    field = BY_NAME[name]
    if field.kind == "bool":
        return st.just(not field.default) if field.default is not None else st.booleans()
    if field.kind == "int":
        low, high = field.between
        return st.integers(low, high).filter(lambda n: n != field.default)
    if field.values:
        return st.sampled_from(field.values)
    letters = st.text("abcdefXYZ0123", min_size=1, max_size=12)
    return letters.filter(lambda text: text != field.default)


settings_off_default = st.sets(st.sampled_from(sorted(API_DEFAULTS)), max_size=8).flatmap(
    lambda names: st.fixed_dictionaries({name: another(name) for name in names})
)


def refusal(current: Backend | None, given_fields: dict[str, Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        merged(current, given_fields)
    return caught.value


def test_the_table_is_the_documented_one() -> None:
    assert {f.name: f.default for f in FIELDS if not f.free} == API_DEFAULTS
    assert {f.name for f in FIELDS if f.free} == FREE


@given(settings_off_default)
@settings(max_examples=60)
def test_every_setting_off_its_default_is_named_and_no_other(off: dict[str, Any]) -> None:
    found = {o.field for o in off_default(merged(None, {**NAMES, **off}))}
    assert found == set(off)


@given(
    settings_off_default,
    st.sets(st.sampled_from(sorted(API_DEFAULTS))),
    st.sampled_from(["null", "empty", "default"]),
)
@settings(max_examples=60)
def test_null_empty_absent_and_the_default_are_equal(
    off: dict[str, Any], reset: set[str], way: str
) -> None:
    put = {"null": None, "empty": ""}
    given_fields = {n: API_DEFAULTS[n] if way == "default" else put[way] for n in reset}
    plain = merged(None, {**NAMES, **{k: v for k, v in off.items() if k not in reset}})
    assert merged(None, {**NAMES, **off, **given_fields}) == plain
    assert merged(merged(None, {**NAMES, **off}), given_fields) == plain


@given(settings_off_default, st.booleans(), st.integers(1, 65_535))
@settings(max_examples=60)
def test_what_is_read_can_be_written_back(off: dict[str, Any], ssl: bool, port: int) -> None:
    backend = merged(None, {**NAMES, "use_ssl": ssl, "port": port, **off})
    assert merged(backend, shown(backend, secrets=True)) == backend


@given(st.dictionaries(st.sampled_from([f.name for f in FIELDS]), st.none() | st.text(max_size=3)))
@settings(max_examples=100)
def test_any_text_is_taken_or_refused_by_name(fields: dict[str, Any]) -> None:
    try:
        merged(None, fields)
    except ApiError as error:
        assert error.status == 422
        assert all(e.property in BY_NAME for e in error.errors)


@pytest.mark.parametrize("field", ["ssl_cert_hostname", "ssl_sni_hostname", "ssl_hostname"])
def test_a_name_equal_to_the_address_is_a_default(field: str) -> None:
    same = merged(None, {**NAMES, field: "ORIGIN.example.com"})
    assert off_default(same) == ()
    moved = merged(same, {"address": "elsewhere.example.com"})
    assert [o.field for o in off_default(moved)] == [field]


def test_secrets_are_not_told() -> None:
    backend = merged(None, {**NAMES, "ssl_client_key": "-----BEGIN"})
    assert shown(backend, secrets=False)["ssl_client_key"] is None
    assert off_default(backend)[0].value == "(secret)"


def test_the_port_decides_about_tls_unless_it_is_given() -> None:
    plain = merged(None, NAMES)
    assert (plain.port, plain.use_ssl) == (80, False)
    assert merged(None, {**NAMES, "port": 443}).use_ssl
    assert not merged(None, {**NAMES, "port": 443, "use_ssl": False}).use_ssl
    assert merged(plain, {"port": 443}).use_ssl
    tls = merged(None, {**NAMES, "port": 443})
    assert not merged(tls, {"port": 80}).use_ssl
    assert merged(tls, {"port": 8443}).use_ssl
    assert merged(tls, {"port": 80, "use_ssl": True}).use_ssl
    assert not merged(merged(tls, {"use_ssl": False}), {"port": 443}).use_ssl


@pytest.mark.parametrize(
    ("given_fields", "address", "derived"),
    [
        ({"address": "a.example.com"}, "a.example.com", "hostname"),
        ({"hostname": "a.example.com"}, "a.example.com", "hostname"),
        ({"address": "192.0.2.1"}, "192.0.2.1", "ipv4"),
        ({"ipv4": "192.0.2.1"}, "192.0.2.1", "ipv4"),
        ({"ipv6": "2001:db8::1"}, "2001:db8::1", "ipv6"),
        ({"address": "2001:db8::1", "ipv4": None, "hostname": ""}, "2001:db8::1", "ipv6"),
        ({"address": "a.example.com", "hostname": "a.example.com"}, "a.example.com", "hostname"),
    ],
)
def test_four_fields_give_one_address(
    given_fields: dict[str, Any], address: str, derived: str
) -> None:
    view = shown(merged(None, {"name": "b", **given_fields}), secrets=True)
    assert view["address"] == address
    places = {k: view[k] for k in ("hostname", "ipv4", "ipv6")}
    assert {k for k, v in places.items() if v is not None} == {derived}


@pytest.mark.parametrize("field", ["address", "hostname", "ipv4"])
def test_whoever_changes_one_of_the_four_and_sends_all_gets_the_change(field: str) -> None:
    backend = merged(None, {"name": "b", "address": "192.0.2.1"})
    new = "198.51.100.7" if field != "hostname" else "new.example.com"
    everything = {**shown(backend, secrets=True), field: new}
    assert merged(backend, everything).address == new


@pytest.mark.parametrize(
    ("given_fields", "field", "says"),
    [
        ({"name": "b"}, "address", "missing"),
        ({"address": "a.example.com"}, "name", "1 to 255"),
        ({**NAMES, "name": "a/b"}, "name", "without '/'"),
        ({**NAMES, "name": "x" * 256}, "name", "1 to 255"),
        ({**NAMES, "name": "tab\t"}, "name", "printable"),
        ({**NAMES, "port": 0}, "port", "1 to 65535"),
        ({**NAMES, "port": 65536}, "port", "65536"),
        ({**NAMES, "port": True}, "port", "an integer"),
        ({**NAMES, "weight": 0}, "weight", "1 to"),
        ({**NAMES, "max_conn": -1}, "max_conn", "-1"),
        ({**NAMES, "use_ssl": "yes"}, "use_ssl", "true, false"),
        ({**NAMES, "min_tls_version": "1.9"}, "min_tls_version", "1.3"),
        ({**NAMES, "share_key": "no spaces"}, "share_key", "letters and digits"),
        ({**NAMES, "override_host": "a b"}, "override_host", "host name"),
        ({**NAMES, "override_host": "a\r\nX: y"}, "override_host", "host name"),
        ({**NAMES, "override_host": "a.example.com:99999"}, "override_host", "port"),
        ({**NAMES, "override_host": "a:" + "9" * 5_000}, "override_host", "port"),
        ({**NAMES, "address": "origin.example.com:8080"}, "address", "port has its own field"),
        ({"name": "b", "address": "http://x"}, "address", "host name"),
        ({"name": "b", "ipv4": "300.1.1.1"}, "ipv4", "IPv4"),
        ({"name": "b", "ipv6": "fe80::1%eth0"}, "ipv6", "IPv6"),
        ({"name": "b", "hostname": "192.0.2.1"}, "hostname", "a host name"),
        ({**NAMES, "hostname": "other.example.com"}, "address", "different places"),
        ({**NAMES, "comment": "a\x00b"}, "comment", "NUL"),
        ({**NAMES, "comment": "\ud800"}, "comment", "Unicode"),
        ({**NAMES, "ssl_ciphers": "x" * 5000}, "ssl_ciphers", "4096"),
    ],
)
def test_each_refusal_names_field_value_and_what_is_allowed(
    given_fields: dict[str, Any], field: str, says: str
) -> None:
    error = refusal(None, given_fields)
    assert (error.status, error.code) == (422, "invalid")
    assert [e.property for e in error.errors] == [field]
    assert says in error.errors[0].reason


def test_all_wrong_fields_are_told_at_once() -> None:
    error = refusal(None, {"port": 0, "weight": 0})
    assert {e.property for e in error.errors} == {"name", "address", "port", "weight"}


def test_an_update_cannot_take_the_address_away() -> None:
    backend = merged(None, NAMES)
    assert refusal(backend, {"address": None}).errors[0].property == "address"
    assert merged(backend, {"hostname": None}).address == backend.address


@pytest.mark.parametrize("host", ["x", "a.example.com:8080", "192.0.2.1", "[2001:db8::1]:443"])
def test_hosts_that_may_override(host: str) -> None:
    assert merged(None, {**NAMES, "override_host": host}).override_host == host
