"""A node of several workers, and what of it can be seen while it stops."""

import asyncio
import errno
from pathlib import Path

import httpx
import pytest

from handoff_edge.node import Worker
from support.edge_events import customer, request_bytes, service
from support.edge_process import EdgeProcess, edge_process
from support.edge_world import Origin, RawClient, backend_of, soon
from support.parts.waiting import eventually


class Starved(Worker):
    """The system has no process for it, until the third try."""

    tries = 0

    async def _start(self) -> asyncio.subprocess.Process:
        self.tries += 1
        if self.tries < 3:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)


async def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    worker = Starved(0, tmp_path, 0, 0, tmp_path)
    running = asyncio.create_task(worker.run())
    try:

        async def started() -> bool | None:
            assert not running.done()
            return worker.pid is not None or None

        await eventually(started, "the worker is started")
        assert worker.tries == 3
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_drain_can_be_watched(tmp_path: Path) -> None:
    async with Origin().serving() as origin:
        configuration = (service(2, backends=(backend_of(origin),)), customer(3))
        async with edge_process(tmp_path / "edge", *configuration, drain_grace=3) as edge:
            opened = asyncio.open_connection("127.0.0.1", edge.port)
            client = RawClient(*await soon(opened))
            await client.send(request_bytes())
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            stopping = asyncio.create_task(edge.process.stop())
            async with httpx.AsyncClient(trust_env=False) as admin:

                async def draining() -> bool | None:
                    answer = await admin.get(f"{edge.admin}/readyz")
                    return answer.json()["reasons"] == ["draining"] or None

                await eventually(draining, "the edge says that it drains")
                found = (await admin.get(f"{edge.admin}/v1/connections")).json()["data"]
                assert len(found) == 1
            assert await edge.metric("handoff_edge_connections_open") == 1
            client.writer.close()
            assert await stopping == 0


@pytest.mark.xdist_group("kafka")
async def test_an_edge_does_not_start_on_topics_that_are_not_as_they_must_be(
    tmp_path: Path, kafka_empty: str
) -> None:
    edge = EdgeProcess(tmp_path, log=f"kafka://{kafka_empty}")
    await edge.process.start()

    async def ended() -> int | None:
        return edge.process.exit_status

    assert await eventually(ended, "it has ended", seconds=60) == 1
    assert "it is not there" in edge.process.tail()
