"""An origin's answers: refused as the origin's fault, or taken with an end that another parser
finds in the same place; the same however they are cut."""

import random
from typing import Any

import h11

from handoff_edge.answer import AnswerReader, Declined, Upgraded, accept_for
from handoff_edge.errors import STATUS, Refused
from support.edge_events import KEY, head
from support.mutations import cuts, fuzz

ASKED = head(extra="Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: x\r\n")
AGREED = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {accept_for(KEY)}\r\nSec-WebSocket-Protocol: b\r\n"
    "Sec-WebSocket-Extensions: x; y=1\r\n\r\n"
).encode()
CHUNKED = (
    b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n"
)
CORPUS = [
    AGREED + b"\x81\x00",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + AGREED,
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nhello, and more",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    CHUNKED + b"behind",
    b"HTTP/1.1 204 No Content\r\n\r\nx",
    b"HTTP/1.0 404 Not Found\r\n\r\nto the end",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
]
DICTIONARY = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b";", b",", b"0\r\n\r\n", b"\r\n\r\n"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 ", b"101", b"304", b"Content-Length: 3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"ffffffff\r\n", b"g\r\n", b"chunked", b"5", b"Upgrade"),
]


def read(pieces: list[bytes]) -> tuple[Any, ...]:
    """What it is taken for, with the bytes that belong to it and whether that is all."""
    reader = AnswerReader(ASKED)
    found: Upgraded | Declined | None = None
    belongs, whole = bytearray(), False
    try:
        for piece in pieces:
            data = piece
            if found is None:
                found = reader.feed(piece)
                if isinstance(found, Declined):
                    data = found.rest
                elif isinstance(found, Upgraded):
                    belongs += found.rest
                    continue
            elif isinstance(found, Upgraded):
                belongs += data
                continue
            if isinstance(found, Declined) and not whole:
                count, whole = found.body.take(data)
                belongs += data[:count]
    except Refused as error:
        assert error.refusal.code in STATUS
        assert error.refusal.code.startswith("origin_")
        # What came before the fault has been passed on by then, more or less of it as it was cut.
        return error.refusal.code, found and found.raw
    if isinstance(found, Upgraded):
        return "101", found.raw, found.subprotocol, bytes(belongs)
    if found is None:
        return ("not whole",)
    return "declined", found.raw, found.status, bytes(belongs), whole


def check(data: bytes, chance: random.Random) -> object:
    outcome = read([data])
    assert read(cuts(data, chance)) == outcome
    if outcome[0] == "declined" and outcome[4]:
        _, raw, status, belongs, _ = outcome
        ends_alike(raw, belongs, status)
        return outcome[0], status, len(belongs)
    return outcome[0], len(outcome)


def ends_alike(raw: bytes, body: bytes, status: int) -> None:
    """h11 sees an answer that ends with the last byte of it, where it takes it at all."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw + body + b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        event = client.next_event()
        assert isinstance(event, h11.Response)
        assert event.status_code == status
        while not isinstance(event, h11.EndOfMessage):
            event = client.next_event()
            assert isinstance(event, h11.Data | h11.EndOfMessage), event
    except h11.RemoteProtocolError:
        return
    assert client.trailing_data[0] == b"HTTP/1.1 200 OK\r\n\r\n"


def test_answers_are_refused_or_end_where_others_see_their_end() -> None:
    assert fuzz(CORPUS, DICTIONARY, check) > 100
