"""The request head: exact bytes kept, anything ambiguous refused, however it was cut."""

import base64
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.request_head import FIELD_VALUE, HEAD_MAX, TOKEN
from handoff_edge.errors import STATUS, Refused
from handoff_edge.head import FIELDS_MAX, Head, HeadReader, read_fields

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ODD = (
    b"GET /chat/a%20b;v=1?x=1&y=%C3%A9 HTTP/1.1\r\n"
    b"hOsT:\t Example.COM.:8080  \r\n"
    b"X-One:1\r\n"
    b"x-one:   2\t\r\n"
    b"Upgrade: WebSocket\r\n"
    b"Connection: keep-alive, UPGRADE\r\n"
    b"Cookie: " + b"c=" + b"v" * 12_288 + b"\r\n"
    b"X-Empty:\r\n"
    b"X-Latin: \xe9\xff\r\n"
    b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\n"
    b"Sec-WebSocket-Version:13\r\n"
    b"Sec-WebSocket-Protocol: a, b\r\n"
    b"Sec-WebSocket-Protocol: c\r\n"
    b'Sec-WebSocket-Extensions: permessage-deflate; x="a,b", Foo\r\n'
    b"\r\n"
)


def head(*, line: str = "GET / HTTP/1.1", drop: tuple[str, ...] = (), add: str = "") -> bytes:
    fields = {
        "Host": "a.example",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if name not in drop)]
    return ("\r\n".join(lines) + "\r\n" + add + "\r\n").encode("latin-1")


def read(data: bytes, cuts: list[int] | None = None) -> tuple[Head, bytes] | None:
    reader = HeadReader()
    found = None
    edges = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(edges):
        part = data[start:end]
        if found is not None:
            found = (found[0], found[1] + part)
        elif part:
            found = reader.feed(part)
    return found


def outcome(data: bytes, cuts: list[int] | None = None) -> object:
    try:
        return read(data, cuts)
    except Refused as error:
        return error.refusal


def test_exact_bytes_are_kept_and_read() -> None:
    found = read(ODD + b"\x81\x85early")
    assert found is not None
    parsed, rest = found
    assert parsed.raw == ODD
    assert rest == b"\x81\x85early"
    assert parsed.host == "example.com"
    assert (parsed.path, parsed.query) == ("/chat/a%20b;v=1", "x=1&y=%C3%A9")
    assert parsed.parameters == [("x", "1"), ("y", "é")]
    assert parsed.key == KEY
    assert parsed.subprotocols == ("a", "b", "c")
    assert parsed.extensions == {"permessage-deflate", "foo"}
    assert [field.value for field in parsed.fields if field.name == "x-one"] == ["1", "2"]


def test_override_host_replaces_the_value_of_host_and_nothing_else() -> None:
    found = read(ODD)
    assert found is not None
    assert found[0].for_origin(None) == ODD
    replaced = found[0].for_origin("inner.test:81")
    assert replaced == ODD.replace(b"Example.COM.:8080", b"inner.test:81")


@settings(max_examples=60)
@given(st.lists(st.integers(0, 900), max_size=12), st.sampled_from([b"", b"\x81\x00", b"x" * 99]))
def test_any_chunking_gives_the_same_head(cuts: list[int], rest: bytes) -> None:
    data = head(add="A: b\r\nC:  d \r\n") + rest
    assert outcome(data, cuts) == outcome(data)
    assert outcome(data, list(range(len(data)))) == outcome(data)


HEAD_PARTS = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"\n", b"\r", b"\r\n", b" ", b"A:b\r\n", b"\x00", b":"]
)


@settings(max_examples=60)
@given(st.lists(HEAD_PARTS, max_size=10), st.data())
def test_a_broken_head_is_refused_alike_however_it_was_cut(
    parts: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=8))
    assert outcome(raw, cuts) == outcome(raw)


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (head(line="GET  / HTTP/1.1"), "bad_request_line", 400),
        (head(line="GET / HTTP/1.1 "), "bad_request_line", 400),
        (head(line="GET /"), "bad_request_line", 400),
        (b"\r\n" + head(), "bad_request_line", 400),
        (b"\x16\x03\x01\x02\x00", "bad_request_line", 400),
        (head(line="GET chat HTTP/1.1"), "bad_target", 400),
        (head(line="GET /a#b HTTP/1.1"), "bad_target", 400),
        (head(line="GET /é HTTP/1.1"), "bad_target", 400),
        (head(line="OPTIONS * HTTP/1.1"), "bad_target", 400),
        (head(line="GET http://a.example/ HTTP/1.1"), "absolute_form", 400),
        (head(line="GET ws://a.example/ HTTP/1.1"), "absolute_form", 400),
        (head(line="GET / HTTP/1.0"), "http_1_0", 400),
        (head(line="GET / HTTP/2.0"), "bad_http_version", 400),
        (head().replace(b"\r\nUpgrade", b"\nUpgrade"), "bare_lf", 400),
        (b"GET / HTTP/1.1\n\n", "bare_lf", 400),
        (head(add="X: a\rb\r\n"), "bare_cr", 400),
        (head(line="GET / HTTP/1.1\rX"), "bare_cr", 400),
        (head(add="X y: z\r\n"), "bad_header", 400),
        (head(add="X : z\r\n"), "bad_header", 400),
        (head(add="nocolon\r\n"), "bad_header", 400),
        (head(add=": z\r\n"), "bad_header", 400),
        (head(add="X: a\x00b\r\n"), "bad_header", 400),
        (head(add=" folded\r\n"), "folded_header", 400),
        (head(add="X: a\r\n\tb\r\n"), "folded_header", 400),
        (head(drop=("Host",)), "missing_host", 400),
        (head(add="Host: a.example\r\n"), "duplicate_host", 400),
        (head(drop=("Host",), add="Host:\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: a@b\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: a, b\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: a:b\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: a:70000\r\n"), "bad_host", 400),
        (head(drop=("Host",), add=f"Host: a:{'0' * 5_000}\r\n"), "bad_host", 400),
        (head(drop=("Host",), add=f"Host: [::1]:{'9' * 5_000}\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: [::1\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: [::1]x\r\n"), "bad_host", 400),
        (head(drop=("Host",), add="Host: [x]\r\n"), "bad_host", 400),
        (head(line="POST / HTTP/1.1"), "bad_method", 400),
        (head(add="Content-Length: 0\r\n"), "content_length", 400),
        (head(add="Transfer-Encoding: chunked\r\n"), "transfer_encoding", 400),
        (head(drop=("Sec-WebSocket-Key",)), "bad_key", 400),
        (head(add=f"Sec-WebSocket-Key: {KEY}\r\n"), "bad_key", 400),
        (head(drop=("Sec-WebSocket-Key",), add="Sec-WebSocket-Key: short\r\n"), "bad_key", 400),
        (head(drop=("Sec-WebSocket-Key",), add="Sec-WebSocket-Key: abcd\r\n"), "bad_key", 400),
        (head(drop=("Upgrade",)), "not_an_upgrade", 426),
        (head(drop=("Connection",)), "not_an_upgrade", 426),
        (head(drop=("Upgrade",), add="Upgrade: h2c\r\n"), "not_an_upgrade", 426),
        (head(drop=("Sec-WebSocket-Version",)), "bad_websocket_version", 426),
        (head(add="Sec-WebSocket-Version: 13\r\n"), "bad_websocket_version", 426),
        (
            head(drop=("Sec-WebSocket-Version",), add="Sec-WebSocket-Version: 8\r\n"),
            "bad_websocket_version",
            426,
        ),
        (head(add="X: " + "a" * HEAD_MAX + "\r\n"), "head_too_large", 431),
    ],
)
def test_refusals(data: bytes, code: str, status: int) -> None:
    with pytest.raises(Refused) as caught:
        read(data)
    assert caught.value.refusal.code == code
    assert caught.value.refusal.status == status == STATUS[code]


def test_426_says_which_version_is_spoken() -> None:
    for data in (head(drop=("Upgrade",)), head(drop=("Sec-WebSocket-Version",))):
        with pytest.raises(Refused) as caught:
            read(data)
        assert ("sec-websocket-version", "13") in caught.value.refusal.headers


def test_a_head_may_have_exactly_the_most_bytes() -> None:
    empty = len(head(add="X: \r\n"))
    fits = head(add="X: " + "a" * (HEAD_MAX - empty) + "\r\n")
    assert len(fits) == HEAD_MAX
    assert read(fits) is not None
    with pytest.raises(Refused, match="head_too_large"):
        read(head(add="X: " + "a" * (HEAD_MAX - empty + 1) + "\r\n"))


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example.:443", "a.example"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[2001:DB8::1]:8080", "2001:db8::1"),
        ("[::1]", "::1"),
        ("a.example:", "a.example"),
    ],
)
def test_host_without_port_and_trailing_dot(value: str, host: str) -> None:
    found = read(head(drop=("Host",), add=f"Host: {value}\r\n"))
    assert found is not None
    assert found[0].host == host


def fault_of(line: bytes) -> str | None:
    """What is wrong with a header line, told one rule after the other."""
    name, colon, value = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        return "folded_header"
    if b"\r" in line:
        return "bare_cr"
    if not colon or not TOKEN.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        return "bad_header"
    return None


LINES = st.text('aB-_: \t\r\x00\x7f\xe9,;"', max_size=12).map(lambda text: text.encode("latin-1"))


@given(st.lists(LINES.filter(lambda line: line), min_size=1, max_size=4))
def test_lines_are_read_at_once_as_by_one_rule_after_the_other(lines: list[bytes]) -> None:
    raw = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    # A CR at a line's end makes the line end before it; that is the reader's, not a line's.
    lines = raw.split(b"\r\n")[: raw.split(b"\r\n").index(b"")]
    faults = [fault for line in lines if (fault := fault_of(line))]
    raw = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    if faults:
        with pytest.raises(Refused) as refused:
            read_fields(raw, 0)
        assert refused.value.refusal.code == faults[0]
        return
    for field, line in zip(read_fields(raw, 0), lines, strict=True):
        name, _, value = line.partition(b":")
        assert field.name == name.decode().lower()
        assert field.value.encode("latin-1") == value.strip(b" \t") == raw[field.start : field.end]


@given(st.binary(min_size=16, max_size=16))
def test_every_valid_key_is_taken(key: bytes) -> None:
    text = base64.b64encode(key).decode()
    found = read(head(drop=("Sec-WebSocket-Key",), add=f"Sec-WebSocket-Key: {text}\r\n"))
    assert found is not None
    assert found[0].key == text


MANY = 300_000


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "line",
    [
        "X:" + "\t" * MANY + "\x01",
        "X: a" + " " * MANY + "\x01",
        "X: " + "a " * MANY + "\x01",
        "X" * MANY,
        'Sec-WebSocket-Extensions: "' + '\\"' * MANY,
        'Sec-WebSocket-Extensions: "' + '\\"' * MANY + "\\",
        "Sec-WebSocket-Extensions: " + '"' * (2 * MANY + 1),
    ],
    ids=["white", "white behind", "words", "no colon", "escapes", "half an escape", "quotes"],
)
def test_a_hostile_line_is_read_once(line: str) -> None:
    """Trying it in all ways would take hours: there is no bound here but the time-out."""
    reader = HeadReader(limit=10 * MANY)
    with pytest.raises(Refused) as caught:
        reader.feed(head(add=line + "\r\n"))
    assert caught.value.refusal.code == "bad_header"


@pytest.mark.parametrize("value", ['x; a="b', '"', '"\\', 'x; a="b", y; c="\\"'])
def test_a_quote_that_is_not_closed_hides_no_extension(value: str) -> None:
    with pytest.raises(Refused, match="a quote that is not closed"):
        read(head(add=f"Sec-WebSocket-Extensions: {value}\r\n"))


def test_a_head_may_have_exactly_the_most_lines() -> None:
    few = FIELDS_MAX - head().count(b"\r\n") + 2
    assert read(head(add="a:\r\n" * few)) is not None
    with pytest.raises(Refused) as caught:
        read(head(add="a:\r\n" * (few + 1)))
    assert caught.value.refusal.code == "head_too_large"
