"""One handoff, from a whole request head to a relayed connection (or to a refusal).

Owns the order of the steps, which is what makes the promises: the origin gets the head and nothing
else until it has agreed; `accepted` is durable before the client sees the 101; what the client sent
early reaches the origin only behind its 101.
"""

import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

from handoff_common.clock import Clock
from handoff_common.events import ConnectionEvent, Counters, Reason
from handoff_common.ids import uuid7
from handoff_common.telemetry import get_logger
from handoff_edge import wire
from handoff_edge.answer import PASSED_ON_MAX, AnswerReader, Declined, Upgraded
from handoff_edge.connection import Connection, Facts, Place
from handoff_edge.decision import Handoff
from handoff_edge.errors import Refusal, Refused, answer_bytes, http_answer, refused
from handoff_edge.head import Head
from handoff_edge.limits import ServiceCounts
from handoff_edge.metrics import Metrics, Watch
from handoff_edge.origin import Dialer
from handoff_edge.patience import Patience
from handoff_edge.protocol import Client
from handoff_edge.recorder import JournalUnavailable, Recorder
from handoff_edge.refusals import Owner
from handoff_edge.reporter import Reporter
from handoff_edge.tunnels import Tunnels
from handoff_relay import Stream

_READ: Final = 64 * 1024
_PASS_ON_SECONDS: Final = 10.0
_SEND_SECONDS: Final = 10.0
_DRAINING: Final = Refusal("draining", "this edge takes no new connections", retry_after=1)


class Denied(Exception):
    """The application's own answer, where it hands nothing off."""

    def __init__(self, code: str, data: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.data = data


@dataclass(slots=True, eq=False)
class Node:
    """What all handshakes of an edge share.

    owner_of: whose a host is by the configuration of now; None: nobody's.
    draining: once set, no further handoff is begun, and none that is under way is completed.
    under_way: the task of each handshake, and whether it may still be given up.
    """

    app: ASGIApp
    dialer: Dialer
    recorder: Recorder
    tunnels: Tunnels
    counts: ServiceCounts
    place: Place
    clock: Clock
    metrics: Metrics
    reporter: Reporter
    patience: Patience
    owner_of: Callable[[str], Owner | None]
    answer_timeout: float
    logger: Any = field(default_factory=lambda: get_logger("edge"))
    draining: bool = False
    under_way: dict["asyncio.Task[None]", bool] = field(default_factory=dict)

    async def on_head(self, client: Client, head: Head) -> None:
        """Carry one client's head through all steps."""
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        try:
            await Handshake(self, client, head, task).run()
        finally:
            del self.under_way[task]

    async def give_up(self, *, timeout: float) -> None:
        """End the handshakes whose connection is not in the journal yet (503 `draining`), and wait
        up to `timeout` seconds for all that were under way."""
        tasks = list(self.under_way)
        for task in tasks:
            if self.under_way[task]:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)


class Handshake:
    """One client's head on its way. Owns and closes both sockets until the relay does."""

    def __init__(self, node: Node, client: Client, head: Head, task: "asyncio.Task[None]") -> None:
        self._node = node
        self._task = task
        self._client = client
        self._head = head
        self._handoff: Handoff | None = None
        self._origin: Stream | None = None
        self._release: Callable[[], None] = lambda: None
        self._owed: Connection | None = None
        """In the journal, and neither relayed nor closed yet."""

    async def run(self) -> None:
        """All steps; every outcome is answered, counted and logged in here."""
        self._client.on_gone = self._task.cancel
        self._node.under_way[self._task] = True
        try:
            if self._client.gone:
                raise asyncio.CancelledError
            await self._steps()
        except Refused as error:
            await self._refuse(error.refusal)
        except Denied as error:
            await self._answer(error.code, error.data)
        except asyncio.CancelledError:
            # The client reset its connection, or the edge stops: this task ends either way.
            if self._client.gone:
                self._count("client_gone")
            elif self._owed is None:
                await self._refuse(_DRAINING)
        except Exception as error:
            self._node.logger.error("unexpected_error", exc_info=error)
            if self._owed is None:
                await self._refuse(Refusal("internal", "internal error"))
        finally:
            self._commit()
            if self._owed is not None:
                self._count("never_established")
                self._node.recorder.record(self._never_established(self._owed))
            self._let_go()
            self._client.close()

    async def _steps(self) -> None:
        started_ns = self._node.clock.now_ns()
        if self._node.draining:
            raise Refused(_DRAINING)
        passed = Watch(self._node.metrics.stages, self._node.clock.now_ns)
        handoff = await self._decide()
        passed("decide")
        if refusal := self._node.recorder.refusal:
            # Before the origin is asked for what could not be recorded.
            raise _unrecorded(refusal)
        origin = self._origin = await self._node.dialer.dial(handoff, handoff.backend, passed)
        sent = self._head.for_origin(handoff.backend.override_host)
        answer = await self._ask(origin, sent)
        passed("answer")
        if isinstance(answer, Declined):
            await self._pass_on(origin, answer)
            return
        if self._node.draining:
            raise Refused(_DRAINING)
        connection = self._owed = await self._accept(handoff, len(sent), answer)
        passed("journal")
        if await self._send_101(connection, answer):
            passed("upgrade")
            self._relay(handoff, connection, origin, answer)
            taken_ns = self._node.clock.now_ns() - started_ns
            self._node.metrics.handshake_seconds.observe(taken_ns / 1e9)

    async def _decide(self) -> Handoff:
        """Ask the application, and take a place among the service's connections: the limits are
        checked by whoever counts, so two requests cannot both be the last that one lets in."""
        status = 0
        headers: list[tuple[str, str]] = []
        body = bytearray()

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind == "handoff.connect":
                self._handoff = message["handoff"]
            elif kind == "websocket.http.response.start":
                status = message["status"]
                for name, value in message["headers"]:
                    headers.append((name.decode("latin-1"), value.decode("latin-1")))
            elif kind == "websocket.http.response.body":
                body.extend(message.get("body", b""))

        await self._node.app(scope_of(self._head, self._client), receive, send)
        if (handoff := self._handoff) is not None:
            self._release = self._node.counts.reserve(
                handoff.service_id, handoff.limits, self._node.clock.now_ms()
            )
            return handoff
        if not status:
            raise refused("internal", "the application gave no answer")
        code = dict(headers).get("x-handoff-error", "denied")
        raise Denied(code, http_answer(status, headers, bytes(body)))

    async def _ask(self, origin: Stream, sent: bytes) -> Upgraded | Declined:
        """Send the head, and nothing else; read the answer."""
        reader = AnswerReader(self._head)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._node.answer_timeout
        try:
            await wire.send_all(origin, sent, deadline=deadline)
            while True:
                data = await wire.receive(origin, _READ, deadline=deadline)
                if not data:
                    raise refused("origin_closed", "the origin closed without an answer")
                answer = reader.feed(data)
                if answer is not None:
                    return answer
                if loop.time() >= deadline:
                    # One that sends a byte now and then is never waited for.
                    raise TimeoutError
        except TimeoutError:
            text = f"the origin gave no answer within {self._node.answer_timeout} s"
            raise refused("origin_answer_timeout", text) from None
        except OSError as error:
            raise refused("origin_closed", f"the origin's connection broke: {error}") from None

    async def _pass_on(self, origin: Stream, answer: Declined) -> None:
        """The origin's own refusal, unchanged, up to where it ends. The client's early bytes are
        dropped: they were meant for a connection that is not."""
        client = self._client
        self._commit()
        client.unwatch()
        self._count("origin_declined", status=answer.status)
        total = len(answer.raw)
        data = answer.rest
        try:
            async with asyncio.timeout(_PASS_ON_SECONDS):
                await wire.send_all(client.sock, answer.raw)
                while True:
                    # The first turn also when nothing came behind the head: a body may be empty.
                    belongs, whole = answer.body.take(data)
                    part = data[: min(belongs, PASSED_ON_MAX - total)]
                    await wire.send_all(client.sock, part)
                    total += len(part)
                    if whole or total >= PASSED_ON_MAX:
                        break
                    data = await wire.receive(origin, _READ)
                    if not data:
                        break
        except (OSError, TimeoutError, Refused) as error:
            self._node.logger.info("pass_on_cut", error=str(error), client_network=client.network)
        self._let_go()
        await client.answer(b"")

    async def _accept(self, handoff: Handoff, sent: int, answer: Upgraded) -> Connection:
        """Make `accepted` durable. From here on a lost client is no reason to stop half-way: what
        is in the journal is either relayed or closed."""
        self._commit()
        connection = Connection(
            place=self._node.place,
            connection_id=uuid7(),
            customer_id=handoff.customer_id,
            service_id=handoff.service_id,
        )
        event = connection.accept(
            self._node.clock.now_ns(),
            Counters(
                req_header_bytes=len(self._head.raw),
                bereq_header_bytes=sent,
                beresp_header_bytes=answer.received,
            ),
            # These live as long as the connection, and many have the same.
            Facts(
                domain=sys.intern(handoff.domain),
                rule=handoff.rule,
                backend=handoff.backend.name,
                service_version=handoff.service_version,
                subprotocol=answer.subprotocol,
                client_network=sys.intern(self._client.network),
                tls=self._client.tls,
            ),
        )
        try:
            await self._node.recorder.accept(event, lambda: self._never_established(connection))
        except JournalUnavailable as error:
            raise _unrecorded(str(error)) from None
        return connection

    async def _send_101(self, connection: Connection, answer: Upgraded) -> bool:
        """False where the client could not be told, so that the connection never was."""
        if self._client.gone:
            return False
        deadline = asyncio.get_running_loop().time() + _SEND_SECONDS
        try:
            await wire.send_all(
                self._client.sock, answer.raw, connection.sent_to_client, deadline=deadline
            )
        except (OSError, TimeoutError):
            return False
        return True

    def _relay(
        self, handoff: Handoff, connection: Connection, origin: Stream, answer: Upgraded
    ) -> None:
        client = self._client
        self._node.metrics.accepted.inc()
        self._node.metrics.services.of(handoff.service_id).accepted += 1
        self._node.logger.info(
            "accepted",
            connection_id=connection.connection_id,
            service_id=handoff.service_id,
            customer_id=handoff.customer_id,
            service_version=handoff.service_version,
            domain=handoff.domain,
            path=self._head.path,
            rule=handoff.rule,
            backend=handoff.backend.name,
            subprotocol=answer.subprotocol,
            client_network=client.network,
        )
        client.unwatch()
        self._owed = None
        try:
            self._node.tunnels.start(
                connection,
                client.sock,
                origin,
                to_origin=bytes(client.held),
                to_client=answer.rest,
                client_eof=client.ended,
                limits=handoff.limits,
                release=self._release,
            )
        except Exception as error:
            # The client has its 101, so what is owed is a `closed`, not a refusal. A relay that is
            # closed (RuntimeError) is an edge at the very end of its drain, or it has failed.
            drained = isinstance(error, RuntimeError) and self._node.draining
            if not drained:
                self._node.logger.error("unexpected_error", exc_info=error)
            self._node.recorder.record(
                connection.close(
                    self._node.clock.now_ns(),
                    connection.counters((0, 0, 0, 0)),
                    reason=Reason.DRAINED if drained else Reason.EDGE_CRASHED,
                    closed_by="edge" if drained else "lost",
                    close_code=None,
                )
            )
            return
        client.take()
        self._origin = None
        self._release = lambda: None

    def _never_established(self, connection: Connection) -> list[ConnectionEvent]:
        return connection.close(
            self._node.clock.now_ns(),
            connection.counters((0, 0, 0, 0)),
            reason=Reason.NEVER_ESTABLISHED,
            closed_by="client",
            close_code=None,
        )

    def _commit(self) -> None:
        """This handshake is not given up any more."""
        self._client.on_gone = None
        self._node.under_way[self._task] = False

    async def _refuse(self, refusal: Refusal) -> None:
        await self._answer(refusal.code, answer_bytes(refusal), detail=refusal.text)

    async def _answer(self, code: str, data: bytes, **fields: object) -> None:
        self._commit()
        self._count(code, **fields)
        self._let_go()
        await self._wait_for_answer()
        await self._client.answer(data)

    async def _wait_for_answer(self) -> None:
        node = self._node
        if node.draining:
            return
        handoff, host = self._handoff, self._head.host
        owner = Owner(handoff.customer_id, handoff.service_id) if handoff else node.owner_of(host)
        seconds = node.patience.enter(owner, node.clock.now_ms())
        if not seconds:
            return
        node.metrics.refused_slowly.inc()
        # What it still sends is not wanted, and must not turn the loop.
        self._client.unwatch()
        self._client.drop_held()
        try:
            # Not all at once, or they would come again at once, too.
            await asyncio.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311
        finally:
            node.patience.leave()

    def _let_go(self) -> None:
        """Close the origin's side and give the service's place back, where they are still held."""
        if self._origin is not None:
            wire.close(self._origin)
            self._origin = None
        self._release()

    def _count(self, code: str, **fields: object) -> None:
        handoff = self._handoff
        # Where it was decided, by that decision: the configuration may be another by now.
        owner = Owner(handoff.customer_id, handoff.service_id) if handoff else None
        self._node.reporter.refused(code, host=self._head.host, owner=owner)
        self._node.logger.info(
            "refused",
            code=code,
            client_network=self._client.network,
            host=self._head.host,
            path=self._head.path,
            service_id=handoff.service_id if handoff else None,
            backend=handoff.backend.name if handoff else None,
            **fields,
        )


def _unrecorded(why: str) -> Refused:
    text = f"the connection cannot be recorded, so it is not opened: {why}"
    return refused("journal_unavailable", text, retry_after=5)


def scope_of(head: Head, client: Client) -> dict[str, Any]:
    """The ASGI scope of a handshake."""
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "wss" if client.tls else "ws",
        "path": unquote(head.path),
        "raw_path": head.path.encode("ascii"),
        "root_path": "",
        "query_string": head.query.encode("ascii"),
        "headers": [
            (field.name.encode("ascii"), field.value.encode("latin-1")) for field in head.fields
        ],
        "client": (client.address, 0),
        "server": None,
        "subprotocols": list(head.subprotocols),
        "state": {},
        "extensions": {
            "websocket.http.response": {},
            "handoff": {"head": head, "server_name": client.server_name},
        },
    }
