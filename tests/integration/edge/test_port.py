"""The client port where the machine itself gives trouble."""

import errno
import socket
from pathlib import Path
from typing import Any

from handoff_common.service import listen
from handoff_edge.origin import same_host
from support.edge_world import RawClient, until, world


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


async def test_a_port_can_be_closed_while_accepting_pauses(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert w.edge._port is not None
        w.edge._port.close()
        listener = Exhausted(1_000_000)
        w.edge._port.open(listener)  # type: ignore[arg-type]
        client = await w.connect()
        await until(lambda: listener.asked)
        w.edge._port.close()
        assert isinstance(client, RawClient)


def test_a_socket_to_this_machine_is_recognised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as near:
            assert same_host(near)
        with socket.create_connection(
            server.getsockname(), source_address=("127.0.0.9", 0)
        ) as other:
            assert not same_host(other)
