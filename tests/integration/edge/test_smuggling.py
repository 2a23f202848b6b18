"""Heads that two parsers could read differently: what the origin saw is what counts.

A request is either refused here, with its code and without a connection to the origin, or it is the
one request of its connection: whatever came behind it is a stream, and reaches the origin only
behind the origin's own 101.
"""

import asyncio
from pathlib import Path

import pytest

from handoff_edge.errors import STATUS
from support.edge_events import KEY, request_bytes
from support.edge_world import Origin, parse, until, world

HOST = "chat.example.com"
SECOND = f"GET /admin HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)


def head(*lines: str, line: str = "GET / HTTP/1.1", host: str = f"Host: {HOST}") -> bytes:
    """An upgrade request with further header lines, or with others in the place of its own."""
    return "\r\n".join([line, *([host] if host else []), *lines, *UPGRADE, "", ""]).encode(
        "latin-1"
    )


REFUSED = {
    # A body that an upgrade cannot have: where it ends would be a matter of opinion.
    "content-length": (head("Content-Length: 0"), "content_length"),
    "content-length that hides a request": (
        head(f"Content-Length: {len(SECOND)}") + SECOND,
        "content_length",
    ),
    "two content-lengths": (head("Content-Length: 0", "Content-Length: 44"), "content_length"),
    "a list of content-lengths": (head("Content-Length: 0, 44"), "content_length"),
    "content-length with a sign": (head("Content-Length: +44"), "content_length"),
    "content-length that is none": (head("Content-Length: x"), "content_length"),
    "chunked": (head("Transfer-Encoding: chunked") + b"0\r\n\r\n" + SECOND, "transfer_encoding"),
    "identity": (head("Transfer-Encoding: identity"), "transfer_encoding"),
    "a coding in capitals": (head("TRANSFER-ENCODING: xCHUNKED"), "transfer_encoding"),
    "a tab before the coding": (head("Transfer-Encoding:\tchunked"), "transfer_encoding"),
    "length, then coding": (
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SECOND,
        "content_length",
    ),
    "coding, then length": (
        head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n" + SECOND,
        "transfer_encoding",
    ),
    "two codings": (
        head("Transfer-Encoding: chunked", "Transfer-Encoding: x"),
        "transfer_encoding",
    ),
    # Header lines that others take for another header, or for two.
    "space before the colon": (head("Transfer-Encoding : chunked"), "bad_header"),
    "tab before the colon": (head("Content-Length\t: 5"), "bad_header"),
    "a coding's name with a control character": (head("Transfer-Encoding\x0b: x"), "bad_header"),
    "vertical tab before the coding": (head("Transfer-Encoding:\x0bchunked"), "bad_header"),
    "no colon": (head("Transfer-Encoding chunked"), "bad_header"),
    "no name": (head(": chunked"), "bad_header"),
    "a name with a space": (head("X Y: chunked"), "bad_header"),
    "a name in Latin-1": (head("Transf\xe9r-Encoding: chunked"), "bad_header"),
    "an underlined name stays another": (head("Content_Length: 5", host=""), "missing_host"),
    "folded": (head("X: a", " Transfer-Encoding: chunked"), "folded_header"),
    "folded with a tab": (head("X: a", "\tb"), "folded_header"),
    "folded first line": (head(host=" Host: " + HOST), "folded_header"),
    "NUL in a value": (head("X: a\x00b"), "bad_header"),
    "NUL in a name": (head("X\x00: a"), "bad_header"),
    "DEL in a value": (head("X: a\x7fb"), "bad_header"),
    "bare LF": (head("X: a\nTransfer-Encoding: chunked"), "bare_lf"),
    "bare LF ends the head": (head()[:-2] + b"\n" + SECOND, "bare_lf"),
    "LF LF": (head()[:-4] + b"\n\n" + SECOND, "bare_lf"),
    "bare CR": (head("X: a\rTransfer-Encoding: chunked"), "bare_cr"),
    "CR CR LF": (head("X: a\r"), "bare_cr"),
    "bare CR in the request line": (head(line="GET /\r HTTP/1.1"), "bare_cr"),
    # Whom it is for.
    "no host": (head(host=""), "missing_host"),
    "two hosts": (head("Host: other.example.com"), "duplicate_host"),
    "two equal hosts": (head(f"Host: {HOST}"), "duplicate_host"),
    "two hosts, one in capitals": (head(f"HOST: {HOST}"), "duplicate_host"),
    "an empty host": (head(host="Host:"), "bad_host"),
    "a list of hosts": (head(host=f"Host: {HOST}, b"), "bad_host"),
    "a host with a path": (head(host=f"Host: {HOST}/x"), "bad_host"),
    "a host with a user": (head(host=f"Host: a@{HOST}"), "bad_host"),
    "a host with a space": (head(host=f"Host: {HOST} b"), "bad_host"),
    "a port that is none": (head(host=f"Host: {HOST}:x"), "bad_host"),
    "a port too high": (head(host=f"Host: {HOST}:65536"), "bad_host"),
    # The request line.
    "absolute form": (head(line=f"GET http://{HOST}/ HTTP/1.1"), "absolute_form"),
    "absolute form of another host": (head(line="GET ws://b.c/ HTTP/1.1"), "absolute_form"),
    "authority form": (head(line=f"GET {HOST}:80 HTTP/1.1"), "bad_target"),
    "asterisk": (head(line="GET * HTTP/1.1"), "bad_target"),
    "CONNECT": (head(line=f"CONNECT {HOST}:80 HTTP/1.1"), "bad_target"),
    "a fragment": (head(line="GET /#x HTTP/1.1"), "bad_target"),
    "a target in Latin-1": (head(line="GET /\xe9 HTTP/1.1"), "bad_target"),
    "NUL in the target": (head(line="GET /\x00 HTTP/1.1"), "bad_target"),
    "two spaces": (head(line="GET  / HTTP/1.1"), "bad_request_line"),
    "a tab for a space": (head(line="GET\t/ HTTP/1.1"), "bad_request_line"),
    "a space in the target": (head(line="GET / x HTTP/1.1"), "bad_request_line"),
    "a space behind": (head(line="GET / HTTP/1.1 "), "bad_request_line"),
    "a space before": (head(line=" GET / HTTP/1.1"), "bad_request_line"),
    "an empty line before": (b"\r\n" + head(), "bad_request_line"),
    "HTTP/0.9": (b"GET /\r\n\r\n", "bad_request_line"),
    "HTTP/1.0": (head(line="GET / HTTP/1.0"), "http_1_0"),
    "HTTP/1.2": (head(line="GET / HTTP/1.2"), "bad_http_version"),
    "HTTP/1.10": (head(line="GET / HTTP/1.10"), "bad_request_line"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_http_version"),
    "http in small letters": (head(line="GET / http/1.1"), "bad_request_line"),
    "POST": (head(line="POST / HTTP/1.1"), "bad_method"),
    "get in small letters": (head(line="get / HTTP/1.1"), "bad_method"),
    "not an upgrade, and a second": (SECOND + SECOND, "not_an_upgrade"),
    "HTTP/2 without TLS": (
        head().replace(b"websocket", b"h2c") + SECOND,
        "not_an_upgrade",
    ),
    "two versions": (head("Sec-WebSocket-Version: 8"), "bad_websocket_version"),
    "two keys": (head(f"Sec-WebSocket-Key: {KEY}"), "bad_key"),
}


async def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name, (data, code) in REFUSED.items():
            # A second request behind each: it must go the way of the first.
            status, headers, body = await w.ask(data + SECOND)
            assert (status, headers["x-handoff-error"]) == (STATUS[code], code), name
            assert len(body) == int(headers["content-length"]), f"{name}: the second was answered"
            assert headers["connection"] == "close", name
        # Behind another client's handoff: what was on its way to the origin would be there by now.
        await w.open(target="/last")
        assert [visit.head.split(b" ")[1] for visit in w.origin.visits] == [b"/last"]
        assert w.origin.connections == 1


PASSED_ON = {
    "as it is": head(),
    "names that differ by a character": head(
        "Content_Length: 5", "X-Content-Length: 5", "TransferEncoding: chunked"
    ),
    "white space around values": head("X:   a \t ", "Y:"),
    "a value in Latin-1": head("X: \xe9\xff"),
    "a header twice": head("X: 1", "x: 2", "Cookie: a", "Cookie: b"),
    "a target that looks like two": head(line="GET /a%0d%0aHost:%20b HTTP/1.1"),
    "a target with dots": head(line="GET /../admin/./%2e%2e//x HTTP/1.1"),
    "hop-by-hop headers named": head("Keep-Alive: timeout=5", "TE: trailers", "Trailer: X").replace(
        b"Connection: Upgrade", b"Connection: upgrade, close, Host, Cookie"
    ),
    "what pretends to come from a proxy": head("X-Forwarded-Host: b", "Forwarded: for=1"),
    "expect": head("Expect: 100-continue"),
}


async def test_what_is_passed_on_is_one_request_and_a_stream(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name, data in PASSED_ON.items():
            client = await w.connect()
            await client.send(data + SECOND)
            assert (await client.head()).startswith(b"HTTP/1.1 101 "), name
            assert await client.exactly(len(SECOND)) == SECOND
            visit = w.origin.visits[-1]
            assert (visit.head, visit.early, bytes(visit.later)) == (data, b"", SECOND), name
        assert w.origin.connections == len(PASSED_ON)


NO = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize(
    "answer",
    [
        NO,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + NO,
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["403", "200", "chunked", "204", "103-then-403", "426"],
)
@pytest.mark.parametrize("later", [False, True], ids=["at-once", "behind-the-answer"])
async def test_a_second_request_never_reaches_an_origin_that_declines(
    tmp_path: Path, answer: bytes, later: bool
) -> None:
    async with world(tmp_path, origin=Origin(lambda _: answer)) as w:
        client = await w.connect()
        await client.send(request_bytes() + (b"" if later else SECOND * 3))
        got = await client.head()
        if later:
            await client.send(SECOND)
        got += await client.rest()
        # The last answer, to its end, and no byte of another.
        assert got == answer[answer.index(b"HTTP/1.1", 20 if b"103 " in answer else 0) :]
        await until(lambda: w.origin.visits[0].ended, "the edge has closed the origin's side")
        (visit,) = w.origin.visits
        assert (visit.head, visit.early, bytes(visit.later)) == (request_bytes(), b"", b"")
        assert w.origin.connections == 1


ORIGINS_FAULT = {
    "a second answer behind the 101's place": (b"\r\n" + NO, "origin_invalid_answer"),
    "an empty line behind a 103": (
        b"HTTP/1.1 103 Early Hints\r\n\r\n\r\n" + NO,
        "origin_invalid_answer",
    ),
    "length and coding": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "origin_bad_framing",
    ),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "origin_bad_framing",
    ),
    "a length with a sign": (
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        "origin_bad_framing",
    ),
    "bare LF": (NO.replace(b"\r\n", b"\n"), "origin_invalid_answer"),
    "folded": (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "origin_invalid_answer"),
    "space before the colon": (
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab",
        "origin_invalid_answer",
    ),
    "NUL": (b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", "origin_invalid_answer"),
}


async def test_an_answer_that_could_be_read_in_two_ways_is_not_passed_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name, (answer, code) in ORIGINS_FAULT.items():
            w.origin.answer = lambda _, answer=answer: answer  # type: ignore[misc]
            status, headers, _ = await w.ask(request_bytes() + SECOND)
            assert (status, headers["x-handoff-error"]) == (502, code), name


async def test_a_head_cut_at_any_byte_is_read_the_same(tmp_path: Path) -> None:
    """Where a segment ends says nothing: not for what is taken, and not for what is refused."""
    good, (bad, code) = PASSED_ON["white space around values"], REFUSED["coding, then length"]
    async with world(tmp_path) as w:

        async def cut(data: bytes, at: int) -> bytes:
            client = await w.connect()
            await client.send(data[:at])
            await asyncio.sleep(0)
            await client.send(data[at:])
            answer = await client.head()
            client.writer.close()
            return answer

        for at in range(1, len(good), 9):
            assert (await cut(good, at)).startswith(b"HTTP/1.1 101 ")
        for at in range(1, bad.index(b"\r\n\r\n") + 4, 9):
            assert parse(await cut(bad, at))[1]["x-handoff-error"] == code
        assert {visit.head for visit in w.origin.visits} == {good}
