"""A node of several workers: starts them, starts them again, ends them, and speaks for them.

Each worker is a process with a journal of its own; all share the client port by SO_REUSEPORT. This
process carries no connection: it may fail without ending any. Workers end by themselves, with a
drain, when it is gone: each holds the other end of a pipe.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from handoff_common.errors import ApiError, HandoffError
from handoff_common.service import listen, serving, stop_signals
from handoff_common.settings import variable
from handoff_common.telemetry import get_logger
from handoff_edge import inspection, journals
from handoff_edge.settings import EdgeSettings
from handoff_edge.wiring import stop_seconds

_ASK_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_START_SECONDS = 120.0
_ADOPT_AGAIN_SECONDS = 30.0
_RESTART_FIRST_SECONDS = 0.2
_RESTART_MOST_SECONDS = 5.0
_STEADY_SECONDS = 30.0
_SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (.+)$")


class Worker:
    """One worker's process, as often as it must be started."""

    def __init__(self, number: int, folder: Path, port: int, tls_port: int, sockets: Path) -> None:
        self.number = number
        self.folder = folder
        self._port = port
        self._tls_port = tls_port
        # Not in the folder: the path of a socket has little more than a hundred bytes.
        self._admin = sockets / str(number)
        self._process: asyncio.subprocess.Process | None = None
        self.leaving = False
        """It is being restarted in order: it has left the port to the others."""
        self._asked_to_end: asyncio.subprocess.Process | None = None
        self._logger = get_logger("node")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keep it running until cancelled; then end it, with its drain."""
        delay = _RESTART_FIRST_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self._process = await self._start()
            except OSError as error:
                # Out of processes or memory, as is likely just when one has died of that.
                self._logger.error("worker_not_started", worker=self.number, detail=str(error))
                await asyncio.sleep(delay)
                delay = min(2 * delay, _RESTART_MOST_SECONDS)
                continue
            try:
                status = await self._process.wait()
            except asyncio.CancelledError:
                await asyncio.shield(self._end(self._process))
                raise
            if loop.time() - began > _STEADY_SECONDS:
                delay = _RESTART_FIRST_SECONDS
            if self._process is self._asked_to_end:
                continue
            self._logger.error("worker_ended", worker=self.number, status=status, retry_in=delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _RESTART_MOST_SECONDS)

    async def _start(self) -> asyncio.subprocess.Process:
        """Raises OSError."""
        # The pipe that it reads from is how it knows that this process lives.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "handoff_edge",
            "worker",
            env=os.environ
            | {
                "HANDOFF_EDGE_JOURNAL": str(self.folder),
                "HANDOFF_EDGE_ADMIN_SOCKET": str(self._admin),
                "HANDOFF_EDGE_PORT": str(self._port),
                "HANDOFF_EDGE_TLS_PORT": str(self._tls_port),
            },
            stdin=asyncio.subprocess.PIPE,
            # What a terminal tells all its processes at once, this one tells them in its order.
            start_new_session=True,
        )

    async def restart(self) -> None:
        """End it, with its drain, and wait until it is ready again; meanwhile the others have the
        port. One that is not there is being started anyway."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.leaving = True
        self._asked_to_end = process
        try:
            process.send_signal(signal.SIGHUP)
            await process.wait()
            while True:
                if self._process is not process:
                    answer = await self.ask("/readyz")
                    if answer is not None and answer.status_code == 200:
                        return
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self.leaving = False

    async def ask(self, path: str) -> httpx.Response | None:
        """What its admin port answers; None where it does not."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._admin))
        async with httpx.AsyncClient(transport=transport, timeout=_ASK_SECONDS) as client:
            try:
                return await client.get(f"http://worker{path}")
            except httpx.HTTPError:
                return None

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        # Not by a signal: who stops a service may send one to each of its processes, and a second
        # one ends a process without its drain.
        assert process.stdin is not None
        process.stdin.close()
        # Its own bound comes first; beyond it something is wrong.
        await process.wait()


async def restart_all(workers: Sequence[Worker], *, seconds: float) -> None:
    """One after the other, each within so many seconds; the first that fails is the last."""
    logger = get_logger("node")
    for worker in workers:
        try:
            async with asyncio.timeout(seconds):
                await worker.restart()
        except TimeoutError:
            logger.error("worker_not_restarted", worker=worker.number, seconds=seconds)
            return
        logger.info("worker_restarted", worker=worker.number)
    logger.info("workers_restarted", workers=len(workers))


async def serve(settings: EdgeSettings) -> None:
    """Until a signal; SIGHUP restarts the workers one after the other. Raises HandoffError where
    the ports cannot be had."""
    sockets = Path(tempfile.mkdtemp(prefix="handoff-"))
    reserved = _reserve(settings.edge_host, settings.edge_port, "edge_port")
    port, tls_port = int(reserved.getsockname()[1]), settings.edge_tls_port
    tls_reserved: socket.socket | None = None
    if settings.tls_certificates is not None:
        tls_reserved = _reserve(settings.edge_host, tls_port, "edge_tls_port")
        tls_port = int(tls_reserved.getsockname()[1])
    workers = [
        Worker(number, folder, port, tls_port, sockets)
        for number, folder in enumerate(journals.wanted(settings.data_dir, settings.edge_workers))
    ]
    tasks = [asyncio.create_task(worker.run(), name="worker") for worker in workers]
    tasks.append(asyncio.create_task(_adopt([worker.folder for worker in workers])))
    admin = listen(settings.edge_admin_host, settings.edge_admin_port)
    most = stop_seconds(settings) + _START_SECONDS
    try:
        async with stop_signals() as stop, serving(admin_app(workers), admin):
            get_logger("node").info(
                "listening",
                port=port,
                tls_port=tls_port if tls_reserved else None,
                admin_port=admin.getsockname()[1],
                workers=len(workers),
            )
            with _on_hangup(lambda: restart_all(workers, seconds=most)):
                await stop.wait()
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(stop_seconds(settings) + _ASK_SECONDS):
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for worker in workers:
            if worker.pid is not None and worker._process and worker._process.returncode is None:
                worker._process.kill()
        reserved.close()
        if tls_reserved is not None:
            tls_reserved.close()
        admin.close()
        shutil.rmtree(sockets, ignore_errors=True)


@contextmanager
def _on_hangup(work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """At SIGHUP, unless it is at work already; given up at the end. Not where the process was told
    to ignore it (`nohup`)."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    loop = asyncio.get_running_loop()
    task: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal task
        if task is None or task.done():
            task = asyncio.create_task(work())

    loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        if task is not None:
            task.cancel()


def admin_app(workers: Sequence[Worker]) -> Starlette:
    """The admin port of the whole node: the workers' own answers, joined."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reasons = []
        for worker, answer in await _ask_all(workers, "/readyz"):
            if worker.leaving:
                # In its turn; the others take the clients.
                continue
            if answer is None:
                reasons.append(f"worker {worker.number}: it does not answer")
            else:
                reasons += [f"worker {worker.number}: {r}" for r in answer.json()["reasons"]]
        status = "not ready" if reasons else "ok"
        return JSONResponse({"status": status, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(_: Request) -> Response:
        answers = await _ask_all(workers, "/metrics")
        texts = {worker.number: answer.text for worker, answer in answers if answer is not None}
        return PlainTextResponse(joined(texts), media_type="text/plain; version=0.0.4")

    async def edge(_: Request) -> Response:
        answers = await _ask_all(workers, "/v1/edge")
        states: list[dict[str, Any]] = [
            {"worker": worker.number, "pid": worker.pid, **(answer.json() if answer else {})}
            for worker, answer in answers
        ]
        return JSONResponse({"workers": states})

    async def connections(request: Request) -> Response:
        query = dict(request.query_params)
        answers = await _ask_all(workers, f"/v1/connections?{urlencode(query)}")
        pages = [(w.number, a.json()) for w, a in answers if a is not None and a.status_code == 200]
        try:
            found = inspection.joined(pages, query)
        except ApiError as error:
            return inspection.problem(error)
        found["meta"]["missing_workers"] = [w.number for w, a in answers if a is None]
        return JSONResponse(found)

    async def connection(request: Request) -> Response:
        name = request.path_params["connection_id"]
        answers = await _ask_all(workers, f"/v1/connections/{quote(name, safe='')}")
        for worker, answer in answers:
            if answer is not None and answer.status_code == 200:
                return JSONResponse({"worker": worker.number, **answer.json()})
        away = [worker.number for worker, answer in answers if answer is None]
        if away:
            detail = f"it may be at a worker that does not answer: {away}"
            return inspection.problem(ApiError(503, "worker_away", "Cannot tell now", detail))
        return inspection.problem(inspection.not_open(name))

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/edge", edge),
            Route("/v1/connections", connections),
            Route("/v1/connections/{connection_id}", connection),
        ]
    )


def joined(texts: dict[int, str]) -> str:
    """Prometheus texts of several workers as one: each sample gets a label `worker`."""
    about: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in sorted(texts.items()):
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                lines = about.setdefault(family, [])
                if line not in lines:
                    lines.append(line)
            elif found := _SAMPLE.match(line):
                name, labels, value = found.groups()
                every = f'worker="{number}"' + (f",{labels}" if labels else "")
                samples.setdefault(family, []).append(f"{name}{{{every}}} {value}")
    return "".join(
        f"{line}\n" for family in about for line in (*about[family], *samples.get(family, []))
    )


async def _ask_all(
    workers: Sequence[Worker], path: str
) -> list[tuple[Worker, httpx.Response | None]]:
    answers = await asyncio.gather(*(worker.ask(path) for worker in workers))
    return list(zip(workers, answers, strict=True))


async def _adopt(own: Sequence[Path]) -> None:
    """A process of its own: what it adopts may be large, and this one must stay quick."""
    logger = get_logger("node")
    while True:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "handoff_edge", "adopt", *(str(folder) for folder in own)
            )
        except OSError as error:
            logger.error("journals_not_adopted", detail=str(error))
        else:
            try:
                if not await process.wait():
                    return
            except asyncio.CancelledError:
                if process.returncode is None:
                    process.terminate()
                    await process.wait()
                raise
            logger.error("journals_not_adopted", status=process.returncode)
        await asyncio.sleep(_ADOPT_AGAIN_SECONDS)


def _reserve(host: str, port: int, name: str) -> socket.socket:
    """Bound and not listening: the port is this node's, and no client is sent here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reserved.bind((host, port))
    except OSError as error:
        reserved.close()
        raise HandoffError(f"{variable(name)} = {port}: {error.strerror}") from None
    return reserved
