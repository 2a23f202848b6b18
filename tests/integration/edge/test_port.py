"""The client port where the machine itself gives trouble."""

import asyncio
import errno
import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from handoff_common.service import listen
from handoff_edge.origin import same_host
from support.counting_worker import CountingWorker
from support.edge_events import request_bytes
from support.edge_world import Origin, RawClient, parse, until, world
from support.parts.waiting import eventually


class Exhausted:
    """A listener of a process that is out of descriptors for a while."""

    def __init__(self, times: int) -> None:
        self._real = listen("127.0.0.1", 0)
        self.left = times
        self.asked = 0

    def accept(self) -> Any:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._real.accept()

    def fileno(self) -> int:
        return self._real.fileno()

    def getsockname(self) -> Any:
        return self._real.getsockname()

    def setsockopt(self, *option: int) -> None:
        self._real.setsockopt(*option)

    def close(self) -> None:
        self._real.close()


async def test_out_of_descriptors_accepting_pauses_and_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert w.edge._port is not None
        w.edge._port.close()
        listener = Exhausted(2)
        w.edge._port.open(listener)  # type: ignore[arg-type]
        await w.open()
        assert listener.asked <= 8, "it asked again at once, and so turned the loop for nothing"


async def test_out_of_descriptors_clients_are_told_and_open_ones_go_on(tmp_path: Path) -> None:
    async with Origin().serving() as origin:
        worker = await CountingWorker.start(tmp_path / "0", tmp_path / "counts", origin.port)
        clients: list[RawClient] = []

        async def ask() -> bytes:
            client = RawClient(*await asyncio.open_connection("127.0.0.1", worker.port))
            clients.append(client)
            await client.send(request_bytes())
            return await client.head()

        async def lets_in() -> bool | None:
            return (await ask()).startswith(b"HTTP/1.1 101 ") or None

        try:
            assert await lets_in()
            pid = worker.process.pid
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
            limit = next(n for n in range(1_000) if n - sum(one < n for one in taken) == 6)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
            answers = [await ask() for _ in range(12)]
            refused = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 101 ")]
            assert 0 < len(refused) < 12, "some fit, the others do not"
            for answer in refused:
                status, headers, _ = parse(answer)
                assert (status, headers["x-handoff-error"]) == (503, "busy")
                assert headers["retry-after"]
            await clients[0].send(b"still there")
            assert await clients[0].exactly(11) == b"still there"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit + 60, hard))
            await eventually(lets_in, "clients are taken again")
        finally:
            for client in clients:
                client.writer.transport.abort()
            await worker.stop()


@pytest.mark.parametrize("how", ["close", "leave"])
async def test_a_port_can_be_given_up_while_accepting_pauses(tmp_path: Path, how: str) -> None:
    now = asyncio.get_running_loop().time
    async with world(tmp_path) as w:
        assert w.edge._port is not None
        w.edge._port.close()
        listener = Exhausted(1_000_000)
        w.edge._port.open(listener)  # type: ignore[arg-type]
        client = await w.connect()
        await until(lambda: listener.asked)
        getattr(w.edge._port, how)()
        assert isinstance(client, RawClient)
        # Its descriptor's number may be another's by then.
        given_up = now()
        await until(lambda: now() > given_up + 0.3, "the pause is over")


async def test_a_port_that_was_left_is_still_no_origin(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        port = w.edge.port
        assert port and w.edge._port is not None
        w.edge._port.leave()
        # Handshakes that are under way would be led back to this node's other workers.
        assert w.edge.port == port


def test_a_socket_to_this_machine_is_recognised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as near:
            assert same_host(near)
        with socket.create_connection(
            server.getsockname(), source_address=("127.0.0.9", 0)
        ) as other:
            assert not same_host(other)
