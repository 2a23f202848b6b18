"""The origin's answer: what is a valid 101, and where any other answer ends."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_edge.answer import ANSWER_HEAD_MAX, AnswerReader, Declined, Upgraded, accept_for
from handoff_edge.errors import STATUS, Refused
from handoff_edge.head import Head, HeadReader

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def request(extra: str = "") -> Head:
    raw = (
        "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
    found = HeadReader().feed(raw.encode())
    assert found is not None
    return found[0]


def agreed(*extra: str, status: str = "HTTP/1.1 101 Switching Protocols", **changes: str) -> bytes:
    fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    lines = [status, *(f"{name}: {value}" for name, value in fields.items() if value), *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read(data: bytes, head: Head | None = None, cuts: list[int] | None = None) -> object:
    reader = AnswerReader(head or request())
    edges = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(edges):
        answer = reader.feed(data[start:end])
        if answer is not None:
            return answer
    return None


def body_of(data: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    """What is passed on of an answer that comes in parts, and whether its end was found."""
    answer = read(data)
    assert isinstance(answer, Declined)
    edges = [0, *sorted(cut for cut in cuts if cut < len(answer.rest)), len(answer.rest)]
    taken = bytearray()
    for start, end in pairwise(edges):
        count, whole = answer.body.take(answer.rest[start:end])
        taken += answer.rest[start : start + count]
        if whole:
            return bytes(taken), True
    return bytes(taken), False


def test_accept_of_the_rfc_example() -> None:
    assert accept_for(KEY) == ACCEPT


def test_a_valid_101_and_what_came_behind_it() -> None:
    data = agreed("X-Odd:   spaced ")
    assert read(data + b"\x81\x02hi") == Upgraded(data, None, b"\x81\x02hi", len(data))


def test_interim_answers_are_skipped_and_counted() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = agreed()
    assert read(interim + final) == Upgraded(final, None, b"", len(interim + final))


def test_offered_subprotocol_and_extension_are_taken() -> None:
    head = request(
        "Sec-WebSocket-Protocol: v1, v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    )
    data = agreed(
        "Sec-WebSocket-Protocol: v2",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
    )
    answer = read(data, head)
    assert isinstance(answer, Upgraded)
    assert answer.subprotocol == "v2"


@settings(max_examples=50)
@given(st.lists(st.integers(0, 200), max_size=10))
def test_any_chunking_gives_the_same_answer(cuts: list[int]) -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + agreed()
    cuts = [cut for cut in cuts if cut <= len(data)]
    assert read(data, cuts=cuts) == read(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (agreed(Sec_WebSocket_Accept=""), "origin_bad_accept"),
        (agreed(Sec_WebSocket_Accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "origin_bad_accept"),
        (agreed(f"Sec-WebSocket-Accept: {ACCEPT}"), "origin_bad_accept"),
        (agreed(Upgrade=""), "origin_bad_upgrade"),
        (agreed(Upgrade="h2c"), "origin_bad_upgrade"),
        (agreed(Connection=""), "origin_bad_upgrade"),
        (agreed(status="HTTP/1.0 101 Switching Protocols"), "origin_bad_upgrade"),
        (agreed("Sec-WebSocket-Protocol: v3"), "origin_bad_subprotocol"),
        (agreed("Sec-WebSocket-Protocol: v1, v2"), "origin_bad_subprotocol"),
        (
            agreed("Sec-WebSocket-Protocol: v1", "Sec-WebSocket-Protocol: v2"),
            "origin_bad_subprotocol",
        ),
        (agreed("Sec-WebSocket-Extensions: permessage-deflate"), "origin_bad_extension"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "origin_invalid_answer"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "origin_invalid_answer"),
        (b"HTTP/2 200 OK\r\n\r\n", "origin_invalid_answer"),
        (agreed("bad header"), "origin_invalid_answer"),
        (agreed("X: a\r\n b"), "origin_invalid_answer"),
        (agreed("X: a\nY: b"), "origin_invalid_answer"),
        (agreed().replace(b"\r\n", b"\n"), "origin_invalid_answer"),
        (b"HTTP/1.1 200 OK\n", "origin_invalid_answer"),
        (b"\n", "origin_invalid_answer"),
        (b"\r\n", "origin_invalid_answer"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n\r\n" + agreed(), "origin_invalid_answer"),
        (agreed("X: " + "a" * ANSWER_HEAD_MAX), "origin_answer_too_large"),
        (b"x" * (ANSWER_HEAD_MAX + 1), "origin_answer_too_large"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "origin_bad_framing",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "origin_bad_framing",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "origin_bad_framing"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
            "origin_bad_framing",
        ),
    ],
)
def test_bad_answers(data: bytes, code: str) -> None:
    head = request("Sec-WebSocket-Protocol: v1, v2\r\n")
    with pytest.raises(Refused) as caught:
        read(data, head)
    assert caught.value.refusal.code == code
    assert STATUS[code] == 502


CHUNKED = b"5;ext=1\r\nhello\r\n3\r\n, a\r\n0\r\nTrailer: x\r\n\r\n"


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60), max_size=12))
def test_the_end_of_each_framing_is_found(cuts: list[int]) -> None:
    sized = b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nhello"
    assert body_of(sized + b"HTTP/1.1 200 smuggled", cuts) == (b"hello", True)
    chunked = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED
    assert body_of(chunked + b"more", cuts) == (CHUNKED, True)
    open_end = b"HTTP/1.1 403 No\r\n\r\nas long as it comes"
    assert body_of(open_end, cuts) == (b"as long as it comes", False)


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(status: int) -> None:
    data = f"HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nrest".encode()
    assert body_of(data, []) == (b"", True)


@pytest.mark.parametrize("chunks", [b"x\r\n", b"5\nhello", b"5" * 5000, b"-1\r\n"])
def test_bad_chunks_are_not_passed_on(chunks: bytes) -> None:
    answer = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert isinstance(answer, Declined)
    with pytest.raises(Refused, match="origin_bad_framing"):
        answer.body.take(answer.rest)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('Sec-WebSocket-Extensions: "' + '\\"' * 30_000, "origin_bad_extension"),
        ("X:" + "\t" * 60_000 + "\x01", "origin_invalid_answer"),
        ("a:\r\n" * 200 + "a:", "origin_answer_too_large"),
    ],
    ids=["open quote", "white space", "lines"],
)
@pytest.mark.timeout(10)
def test_a_hostile_answer_is_read_once_and_refused(line: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        read(agreed(line))
    assert caught.value.refusal.code == code
