"""A handshake on real sockets: the origin sees the client's bytes and nothing before its time."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from handoff_common.events import ConnectionAccepted, Limits, RuleSnapshot, counters_of
from handoff_edge.errors import STATUS
from handoff_edge.head import HELD_MAX
from support.edge_events import KEY, cap, customer, request_bytes, service
from support.edge_world import (
    Origin,
    RawClient,
    agree,
    backend_of,
    parse,
    publish,
    soon,
    until,
    world,
)

ODD = (
    b"GET /chat/a%20b;v=1?x=1&y=%0A HTTP/1.1\r\n"
    b"hOsT:\t Chat.EXAMPLE.com.:8080  \r\n"
    b"X-One:1\r\n"
    b"x-one:   2\t\r\n"
    b"Upgrade: WebSocket\r\n"
    b"Connection: keep-alive, UPGRADE\r\n"
    b"Cookie: c=" + b"v" * 12_288 + b"\r\n"
    b"X-Empty:\r\n"
    b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\n"
    b"sec-websocket-version:13\r\n"
    b"X-Latin: \xe9\xff\r\n"
    b"\r\n"
)
FRAME = b"\x81\x85\x01\x02\x03\x04ieoha"


async def test_the_origin_gets_the_head_byte_for_byte(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.connect()
        await client.send(ODD)
        head = await client.head()
        assert w.origin.visits[0].head == ODD
        assert head == agree(ODD)
        (accepted,) = await w.events()
        assert isinstance(accepted, ConnectionAccepted)
        assert accepted.data.domain == "chat.example.com"
        assert counters_of(accepted.data)[::2] == (len(ODD), 0, len(ODD), len(head))


async def test_override_host_changes_the_value_of_host_only(tmp_path: Path) -> None:
    async with world(tmp_path, backend={"override_host": "inner.test"}) as w:
        client = await w.connect()
        await client.send(ODD)
        await client.head()
        assert w.origin.visits[0].head == ODD.replace(b"Chat.EXAMPLE.com.:8080", b"inner.test")


async def test_a_path_with_an_encoded_line_feed_is_decided_like_any_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.open(target="/a%0Ab")
        assert w.origin.visits[0].head.startswith(b"GET /a%0Ab ")


async def test_a_frame_in_the_heads_packet_reaches_the_origin_behind_its_101(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        client = await w.connect()
        await client.send(request_bytes() + FRAME)
        await client.head()
        assert await client.exactly(len(FRAME)) == FRAME
        visit = w.origin.visits[0]
        assert (visit.early, bytes(visit.later)) == (b"", FRAME)


async def test_a_frame_in_the_heads_packet_never_reaches_an_origin_that_refuses(
    tmp_path: Path,
) -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with world(tmp_path, origin=Origin(lambda _: refusal)) as w:
        client = await w.connect()
        await client.send(request_bytes() + FRAME)
        assert await client.rest() == refusal
        await until(lambda: w.origin.visits[0].ended, "the edge has closed the origin's side")
        assert (w.origin.visits[0].early, bytes(w.origin.visits[0].later)) == (b"", b"")
        assert await w.events() == []


async def test_a_pipelined_request_never_reaches_an_origin_that_refuses(tmp_path: Path) -> None:
    """The trap: a refused upgrade with a second request behind it made an origin run both."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    async with world(tmp_path, origin=Origin(lambda _: answer)) as w:
        client = await w.connect()
        await client.send(request_bytes() + b"POST /admin HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.rest() == answer
        await until(lambda: w.origin.visits[0].ended)
        assert b"admin" not in w.origin.visits[0].head + w.origin.visits[0].later
        assert w.origin.connections == 1


async def test_a_head_in_single_bytes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.connect()
        data = request_bytes()
        for at in range(len(data)):
            await client.send(data[at : at + 1])
            await asyncio.sleep(0)
        await client.head()
        assert w.origin.visits[0].head == data
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME


async def test_more_than_is_held_waits_in_the_clients_socket(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def late(head: bytes) -> bytes:
        await answered.wait()
        return agree(head)

    data = bytes(range(256)) * 4096
    assert len(data) > 4 * HELD_MAX
    async with world(tmp_path, origin=Origin(late)) as w:
        client = await w.connect()
        sending = asyncio.create_task(client.send(request_bytes() + data))
        await until(lambda: w.origin.visits)
        answered.set()
        await client.head()
        assert await client.exactly(len(data)) == data
        await soon(sending)
        assert bytes(w.origin.visits[0].later) == data


async def test_what_the_origin_sends_with_its_101_comes_behind_it(tmp_path: Path) -> None:
    async with world(tmp_path, origin=Origin(lambda head: agree(head) + b"\x81\x02hi")) as w:
        client = await w.open()
        assert await client.exactly(4) == b"\x81\x02hi"


async def test_an_end_that_came_with_the_head_is_passed_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.connect()
        await client.send(request_bytes() + FRAME)
        client.writer.write_eof()
        answer = await client.rest()
        assert answer == agree(request_bytes()) + FRAME
        assert w.origin.visits[0].ended


async def test_a_reset_gives_the_handshake_up(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def never(head: bytes) -> bytes:
        await hold.wait()
        return b""

    async with world(tmp_path, origin=Origin(never)) as w:
        client = await w.connect()
        await client.send(request_bytes())
        await until(lambda: w.origin.visits)
        client.reset()
        await until(lambda: not w.edge.state()["handshakes"], "the handshake is given up")
        assert await w.events() == []
        assert w.edge.metrics.refused.labels("client_gone")._value.get() == 1
        hold.set()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request_bytes().replace(b"HTTP/1.1", b"HTTP/1.0"), "http_1_0"),
        (request_bytes().replace(b"\r\nUpgrade", b"\nUpgrade"), "bare_lf"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "bad_request_line"),
        (request_bytes(target="http://chat.example.com/"), "absolute_form"),
        (request_bytes(extra="Content-Length: 5\r\n") + b"hello", "content_length"),
        (request_bytes(extra="Transfer-Encoding: chunked\r\n"), "transfer_encoding"),
        (request_bytes(extra="Host: b\r\n"), "duplicate_host"),
        (request_bytes(extra=" fold\r\n"), "folded_header"),
        (request_bytes(extra="X: " + "a" * 20_000 + "\r\n"), "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: chat.example.com\r\n\r\n", "not_an_upgrade"),
        (request_bytes().replace(b"Version: 13", b"Version: 8"), "bad_websocket_version"),
        (request_bytes(host="other.example.com"), "unknown_domain"),
    ],
)
async def test_a_refused_head_gets_status_and_code_and_never_reaches_an_origin(
    tmp_path: Path, data: bytes, code: str
) -> None:
    async with world(tmp_path) as w:
        status, headers, body = await w.ask(data)
        assert (status, headers["x-handoff-error"]) == (STATUS[code], code)
        assert headers["connection"] == "close"
        assert headers["content-type"].startswith("text/plain")
        assert int(headers["content-length"]) == len(body) > 1
        if status == 426:
            assert headers["sec-websocket-version"] == "13"
        assert w.origin.connections == 0
        assert await w.events() == []


async def test_each_refusal_of_the_configuration_as_it_changes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:

        async def code() -> str:
            status, headers, _ = await w.ask(request_bytes())
            found = headers["x-handoff-error"]
            assert status == STATUS[found]
            assert ("retry-after" in headers) is (status == 429)
            return found

        on = {"backends": (backend_of(w.origin),)}
        await w.tell(service(101, websockets_enabled=False))
        assert await code() == "not_enabled"
        await w.tell(service(102, **on), customer(102, contracts=()))
        assert await code() == "no_contract"
        await w.tell(customer(103, account_type="trial"))
        assert await code() == "trial_account"
        await w.tell(customer(104, suspended=True))
        assert await code() == "suspended"
        await w.tell(customer(105), cap())
        assert await code() == "over_budget"
        rules = (RuleSnapshot(name="r", path_prefix="/x", backend="main"),)
        await w.tell(cap(on=False), service(106, rules=rules, **on))
        assert await code() == "no_rule"
        await w.tell(service(107, limits=Limits(max_connections=1), **on))
        client = await w.open()
        assert await code() == "too_many_connections"
        client.writer.close()
        await until(lambda: not len(w.edge.tunnels))
        await w.tell(service(108, limits=Limits(max_new_per_second=0), **on))
        assert await code() == "too_many_new"
        await w.tell(service(109, deleted_at=customer().time, **on))
        assert await code() == "unknown_domain"
        assert w.origin.connections == 1


async def test_an_edge_that_never_saw_a_configuration_is_not_ready(tmp_path: Path) -> None:
    async with world(tmp_path, configured=False) as w:
        await until(lambda: not w.edge.not_ready(), "an empty log counts as a configuration")
        w.edge.configuration.seen = False
        assert any("configuration" in reason for reason in w.edge.not_ready())
        _, headers, _ = await w.ask(request_bytes())
        assert headers["x-handoff-error"] == "no_configuration"


async def test_a_slow_head_has_a_deadline(tmp_path: Path) -> None:
    async with world(tmp_path, head_timeout=0.05) as w:
        client = await w.connect()
        await client.send(request_bytes()[:-2])
        status, headers, _ = parse(await client.rest())
        assert (status, headers["x-handoff-error"]) == (408, "head_timeout")
        assert w.origin.connections == 0


async def test_bytes_that_trickle_in_do_not_put_the_deadline_off(tmp_path: Path) -> None:
    async with world(tmp_path, head_timeout=0.3) as w:
        client = await w.connect()
        began = asyncio.get_running_loop().time()

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in request_bytes(extra="X-Long: " + "x" * 10_000 + "\r\n"):
                    await client.send(bytes([byte]))
                    await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        head = await client.head()
        assert parse(head)[1]["x-handoff-error"] == "head_timeout"
        assert asyncio.get_running_loop().time() - began < 5
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)


async def test_unfinished_heads_of_one_network_leave_room_for_others(tmp_path: Path) -> None:
    async with world(tmp_path, max_heads=10, max_heads_per_network=2) as w:
        for _ in range(2):
            await (await w.connect()).send(b"GET")
        await until(lambda: w.edge.state()["heads_waiting"] == 2)
        third = await w.connect()
        with contextlib.suppress(ConnectionError):
            assert await third.rest() == b""
        other = RawClient(
            *await asyncio.open_connection("127.0.0.1", w.edge.port, local_addr=("127.0.9.1", 0))
        )
        await other.send(request_bytes())
        assert (await other.head()).startswith(b"HTTP/1.1 101 ")
        other.reset()


async def test_unfinished_heads_are_bounded(tmp_path: Path) -> None:
    async with world(tmp_path, max_heads=2) as w:
        first, second = await w.connect(), await w.connect()
        await first.send(b"GET")
        await second.send(b"GET")
        await until(lambda: w.edge.state()["heads_waiting"] == 2)
        third = await w.connect()
        with contextlib.suppress(ConnectionError):
            assert await third.rest() == b""
        assert w.edge.metrics.refused.labels("too_many_heads")._value.get() == 1
        first.writer.close()
        await until(lambda: w.edge.state()["heads_waiting"] == 1)
        await w.open()


async def test_handshakes_under_way_are_bounded(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def late(head: bytes) -> bytes:
        await hold.wait()
        return agree(head)

    async with world(tmp_path, origin=Origin(late), max_handshakes=1) as w:
        client = await w.connect()
        await client.send(request_bytes())
        await until(lambda: w.origin.visits)
        other = await w.connect()
        await other.send(request_bytes())
        status, headers, _ = parse(await other.rest())
        assert (status, headers["x-handoff-error"]) == (503, "busy")
        hold.set()
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")


async def test_an_origin_that_answers_nobody_leaves_places_to_others(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def late(head: bytes) -> bytes:
        if b"slow.example.com" in head:
            await hold.wait()
        return agree(head)

    async with world(tmp_path, origin=Origin(late), max_handshakes=10) as w:
        backends = (backend_of(w.origin),)
        slow = service(101, service_id="slow", domains=("slow.example.com",), backends=backends)
        await publish(w.log, slow)
        await until(lambda: w.edge.configuration.book.services == 2)
        crowd = [await w.connect() for _ in range(10)]
        for client in crowd:
            await client.send(request_bytes(host="slow.example.com"))
        await until(lambda: w.edge.metrics.refused.labels("busy")._value.get() == 2)
        await w.open()
        hold.set()


async def test_what_clients_send_early_is_bounded_over_all_of_them(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def late(head: bytes) -> bytes:
        await hold.wait()
        return agree(head)

    async with world(tmp_path, origin=Origin(late)) as w:
        w.origin.echo = True
        w.edge._early._most = 5_000
        payload = b"\x82\xfe\x0f\xa0abcd" + bytes(4_000)
        clients = [await w.connect() for _ in range(4)]
        for client in clients:
            await client.send(request_bytes() + payload)
        await until(lambda: len(w.origin.visits) == 4)
        hold.set()
        for client in clients:
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            assert await client.exactly(len(payload)) == payload
        assert w.edge._early.held == 0


async def test_a_client_that_leaves_within_its_head_leaves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for leave in ("close", "reset"):
            client = await w.connect()
            await client.send(b"GET / HT")
            await until(lambda: w.edge.state()["heads_waiting"] == 1)
            client.writer.close() if leave == "close" else client.reset()
            await until(lambda: w.edge.state()["heads_waiting"] == 0)
        assert w.edge.metrics.refused.labels("head_incomplete")._value.get() == 2
