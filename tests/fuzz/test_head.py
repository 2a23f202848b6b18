"""Request heads: refused, or read as another parser reads them; the same however they are cut."""

import random

import h11

from handoff_edge.errors import STATUS, Refused
from handoff_edge.head import Head, HeadReader
from support.edge_events import request_bytes
from support.mutations import cuts, fuzz

CORPUS = [
    request_bytes(),
    request_bytes(extra='Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: x; y="a,b"\r\n'),
    request_bytes(host="[2001:db8::1]:80", target="/a%20b?x=1&y=%0A"),
    request_bytes(extra="X:\t a \t\r\nCookie: a=b; c=\xe9\r\nx:\r\n") + b"\x81\x00",
    request_bytes(extra="Content-Length: 3\r\n") + b"abc",
    request_bytes(extra="Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request_bytes(),
    request_bytes(target="http://a/"),
]
DICTIONARY = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b",", b"\x7f", b"\x80", b"\x0b", b"\r\n "),
    *(b"Host: a\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade"),
    *(b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"/", b"#", b"?", b"13", b"websocket", b"\r\n\r\n"),
]


def read(pieces: list[bytes]) -> tuple[str, Head | None, bytes]:
    reader, found = HeadReader(), None
    behind = b""
    try:
        for piece in pieces:
            if found is not None:
                behind += piece
            elif piece and (result := reader.feed(piece)) is not None:
                found, behind = result
    except Refused as error:
        assert error.refusal.code in STATUS
        return error.refusal.code, None, b""
    return "taken" if found else "not whole", found, behind


def check(data: bytes, chance: random.Random) -> object:
    outcome, head, behind = read([data])
    assert read(cuts(data, chance)) == (outcome, head, behind)
    if head is None:
        return outcome
    assert head.raw + behind == data
    assert (
        data[head.host_start : head.host_end]
        .decode("latin-1")
        .lower()
        .startswith(("[",) if ":" in head.host else (head.host,))
    )
    replaced = HeadReader().feed(head.for_origin("b.example"))
    assert replaced is not None
    assert replaced[0].host == "b.example"
    others = [field[:2] for field in head.fields if field.name != "host"]
    assert [field[:2] for field in replaced[0].fields if field.name != "host"] == others
    read_alike(head)
    return outcome, len(head.fields), bool(head.query), bool(head.extensions)


def read_alike(head: Head) -> None:
    """h11 takes it for the same request, without a body."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(head.raw)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (
        event.method + b" " + event.target
        == head.raw.rpartition(b"\r\n\r\n")[0].split(b" HTTP/1.1\r\n", 1)[0]
    )
    assert [(name.decode(), value.decode("latin-1")) for name, value in event.headers] == [
        field[:2] for field in head.fields
    ]
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.trailing_data[0] == b""


def test_heads_are_refused_or_read_as_others_read_them() -> None:
    assert fuzz(CORPUS, DICTIONARY, check) > 100
