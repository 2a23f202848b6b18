"""Puts the edge together: every part is made here, and nothing is opened before `on_start`."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import Any, cast

from handoff_common.clock import Clock, SystemClock
from handoff_common.errors import LogError, SettingError
from handoff_common.events import Limits
from handoff_common.log import EventLog, JournaledLog, Spool
from handoff_common.service import Loop, Service, listen
from handoff_common.settings import variable
from handoff_common.telemetry import get_logger, new_registry
from handoff_edge.app import admin_app, decision_app
from handoff_edge.certificates import BadCertificate, Certificates
from handoff_edge.checkpoints import Checkpoints
from handoff_edge.configuration import Configuration
from handoff_edge.connection import Place
from handoff_edge.decision import Handoff, decide
from handoff_edge.delivery import Delivery, Direct
from handoff_edge.enforcement import Enforcement
from handoff_edge.errors import Refusal
from handoff_edge.forwarder import Forwarder
from handoff_edge.handshake import Node
from handoff_edge.head import Head
from handoff_edge.limits import Admission, Early, Handshakes, ServiceCounts, Shared
from handoff_edge.metrics import Metrics
from handoff_edge.origin import Dialer, LookUp, Resolver
from handoff_edge.patience import Patience
from handoff_edge.protocol import ClientPort
from handoff_edge.recorder import Recorder
from handoff_edge.recovery import recover
from handoff_edge.refusals import Owner
from handoff_edge.reporter import Reporter
from handoff_edge.service_metrics import OpenByService
from handoff_edge.settings import EdgeSettings
from handoff_edge.tunnels import Tunnels
from handoff_relay import IMPLEMENTATIONS, Implementation, ServerTls, active

_CLOSE_MARGIN = 2.0
"""Seconds that an orderly end may take beyond the peers' grace."""

_FLUSH_SECONDS = 10.0
_HANDSHAKE_SECONDS = 16.0
"""Seconds that a handshake takes at most from its append to the journal on."""

_ANSWER_SECONDS = 2.0
"""Seconds for the last refusals to be read."""

_REPORT_SECONDS = 2.0
"""Seconds, at a stop, for the log to take the last counts of refusals: they are not billed."""

_CATCH_UP_SECONDS = 1.0
# A head that is still not whole by then is refused by the drain.
_LEAVE_SECONDS = 5.0
_LEAVE_LOOK_SECONDS = 0.05
_REFUSALS_AT_ONCE = 20
_REFUSED_SECONDS = 1.0
_REFUSED_WAITING = 1_024
_EARLY_MAX = 64 * 1024 * 1024
# A broker that is away answers nothing for a while; clients should not wait for its time-out.
_FIRST_LOOK_SECONDS = 5.0

_RULEBOOK = "rulebook.json"


class Edge:
    """All parts of one edge, joined. `service` is what runs it; the rest is for tests and for the
    process that holds it."""

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        log: EventLog,
        journal: Spool | None,
        clock: Clock,
        relay: Implementation,
        look_up: LookUp | None,
        listener: socket | None,
        appended_at: Callable[[], int | None],
        reuse_port: bool,
        shared: Shared | None,
    ) -> None:
        self._settings = settings
        self._journal: JournaledLog = journal or cast(JournaledLog, log)
        self._clock = clock
        self._listener = listener
        self._reuse_port = reuse_port
        self._logger = get_logger("edge")
        self._opened = False
        self.metrics = Metrics(new_registry(), services=settings.metrics_services)
        self.place = Place(self._journal.owner_id, settings.region, settings.pop)
        self.configuration = Configuration(log, clock, settings.data_dir / _RULEBOOK)
        self.counts = ServiceCounts(shared)
        self.forwarder: Forwarder | None = None
        if journal is not None:
            self.forwarder = Forwarder(
                journal,
                log,
                clock,
                self.metrics,
                max_bytes=settings.journal_max_bytes,
                appended_at=appended_at,
            )
        self.delivery: Delivery = self.forwarder or Direct(self._journal)
        self.recorder = Recorder(
            self._journal,
            self.delivery,
            self.place,
            clock,
            self.metrics,
            append_timeout=settings.journal_timeout,
        )
        self.reporter = Reporter(
            log,
            self.place,
            clock,
            self.metrics,
            self._owner_of,
            interval=settings.refusals_interval,
            timeout=settings.journal_timeout,
        )
        self._tls = relay.tls
        self.certificates: Certificates | None = None
        if settings.tls_certificates is not None:
            self.certificates = Certificates(
                settings.tls_certificates,
                relay.tls.server,
                self.metrics,
                interval=settings.tls_interval,
            )
        # The system's own time costs a relay nothing; another is carried to it.
        time_ns = None if isinstance(clock, SystemClock) else clock.now_ns
        self._relay = relay.relay(time_ns=time_ns)
        self.tunnels = Tunnels(
            self._relay,
            self.recorder,
            clock,
            self.metrics,
            slots=settings.checkpoint_interval,
            close_grace=settings.close_grace,
            workers=settings.edge_workers if shared is not None else 1,
        )
        self.metrics.registry.register(
            OpenByService(self.tunnels.counts, settings.metrics_services)
        )
        self.metrics.relay_buffer.set_function(self._relay.buffered_bytes)
        self.metrics.heads.set_function(lambda: self._admission.waiting)
        self.checkpoints = Checkpoints(
            self.tunnels, self.recorder, clock, interval=settings.checkpoint_interval
        )
        self.enforcement = Enforcement(
            self.configuration,
            self.tunnels,
            clock,
            grace=settings.disable_grace,
            contract_grace=settings.contract_grace,
        )
        self._resolver = Resolver(clock, look_up)
        self._admission = Admission(
            total=settings.max_heads, per_network=settings.max_heads_per_network
        )
        self._handshakes = Handshakes(settings.max_handshakes)
        self._early = Early(_EARLY_MAX)
        self._node: Node | None = None
        self._port: ClientPort | None = None
        self._tls_port: ClientPort | None = None

    @property
    def service(self) -> Service:
        recorder, checkpoints = self.recorder, self.checkpoints
        interval = self._settings.watermark_interval
        forwarder = self.forwarder
        delivering: dict[str, Loop] = {}
        if forwarder is not None:
            delivering = {
                "edge-forwarder": forwarder.forward,
                "edge-announcer": forwarder.announce,
                "edge-forgetter": forwarder.forget,
            }
        return Service(
            name="edge",
            app=admin_app(
                self.metrics.registry,
                self.not_ready,
                self.state,
                self._refresh,
                self.tunnels,
                self._clock,
            ),
            loops={
                **delivering,
                "edge-recorder": recorder.run,
                "edge-configuration": self.configuration.run,
                "edge-rulebook-keeper": self.configuration.keep,
                "edge-checkpoints": checkpoints.run,
                "edge-watermarks": lambda: recorder.publish_watermarks(interval),
                **({"edge-certificates": self.certificates.run} if self.certificates else {}),
                "edge-enforcement": self.enforcement.run,
                "edge-counts": self._catch_up,
                "edge-reporter": self.reporter.run,
                "edge-relay": self._relay_runs,
            },
            on_start=self.start,
            once_running=self.open,
            on_stop=self.stop,
            not_ready=self.not_ready,
            stop_seconds=stop_seconds(self._settings),
        )

    @property
    def port(self) -> int:
        """Where clients connect; 0 before `open`."""
        return self._port.port if self._port else 0

    @property
    def tls_port(self) -> int:
        """The same with TLS; 0 before `open`, and where there is none."""
        return self._tls_port.port if self._tls_port else 0

    def not_ready(self) -> list[str]:
        reasons = list(self.recorder.problems)
        if self._relay.failed:
            reasons.append("the relay has ended")
        if not self.configuration.seen:
            reasons.append("configuration: none was ever seen")
        if self._node is None or not self._opened:
            reasons.append("the client port is not open")
        elif self._node.draining:
            reasons.append("draining")
        return reasons

    def state(self) -> dict[str, Any]:
        book = self.configuration.book
        return {
            "edge_id": self.place.edge_id,
            "region": self.place.region,
            "pop": self.place.pop,
            "open_connections": len(self.tunnels),
            "handshakes": len(self._node.under_way) if self._node else 0,
            "heads_waiting": self._admission.waiting,
            "journal_backlog": self.recorder.backlog,
            "rulebook": {
                "services": book.services,
                "enabled": book.enabled,
                "domains": book.domains,
                "age_ms": self.configuration.age_ms,
            },
        }

    async def start(self) -> None:
        """What a former process left is closed, and this edge's id is in the log, before anything
        new is taken. Raises LogError, SettingError."""
        try:
            tls = self._tls.client(self._settings.extra_ca)
        except (OSError, ValueError) as error:
            name, value = variable("extra_ca"), self._settings.extra_ca
            raise SettingError(f"{name} = {value}: {error}; takes a PEM file") from None
        await recover(self._journal, self.place, self.metrics)
        await self.recorder.start()
        await self.configuration.load()
        with suppress(TimeoutError):
            await self.recorder.watermark()
        self._node = Node(
            app=decision_app(self._decide),
            dialer=Dialer(
                self._resolver,
                tls,
                allow_private=self._settings.allow_private_origins,
                own_ports=lambda: (self.port, self.tls_port),
                own_networks=self._settings.own_networks,
                connect_timeout=self._settings.connect_timeout,
            ),
            recorder=self.recorder,
            tunnels=self.tunnels,
            counts=self.counts,
            place=self.place,
            clock=self._clock,
            metrics=self.metrics,
            reporter=self.reporter,
            patience=Patience(
                at_once=_REFUSALS_AT_ONCE,
                seconds=_REFUSED_SECONDS,
                most=min(_REFUSED_WAITING, self._settings.max_handshakes // 4),
            ),
            owner_of=self._owner_of,
            answer_timeout=self._settings.answer_timeout,
        )
        self._port = self._new_port(None)
        if self.certificates is not None:
            try:
                self.certificates.load()
            except BadCertificate as error:
                raise SettingError(f"{variable('tls_certificates')}: {error}") from None
            self._tls_port = self._new_port(self.certificates.now)

    def _new_port(self, tls: Callable[[], ServerTls] | None) -> ClientPort:
        assert self._node is not None
        return ClientPort(
            self._node.on_head,
            self._admission,
            self.metrics,
            self.reporter,
            head_timeout=self._settings.head_timeout,
            handshakes=self._handshakes,
            early=self._early,
            owner_of=self._owner_of,
            proxies=self._settings.proxy_networks,
            tls=tls,
        )

    async def open(self) -> None:
        """Take clients. Raises SettingError where the port is not free."""
        assert self._port is not None
        if not await self.configuration.first_look(timeout=_FIRST_LOOK_SECONDS):
            self._logger.warning("rulebook_not_current", age_ms=self.configuration.age_ms)
        settings = self._settings
        self._listen(self._port, "edge_port", settings.edge_port, self._listener)
        if self._tls_port is not None:
            self._listen(self._tls_port, "edge_tls_port", settings.edge_tls_port, None)
        self._opened = True
        self._logger.info(
            "listening",
            host=settings.edge_host,
            port=self.port,
            tls_port=self.tls_port or None,
            edge_id=self.place.edge_id,
            relay=type(self._relay).__name__,
        )

    def _listen(self, port: ClientPort, name: str, number: int, listener: socket | None) -> None:
        host = self._settings.edge_host
        try:
            port.open(listener or listen(host, number, reuse_port=self._reuse_port))
        except OSError as error:
            text = f"{variable(name)} = {number}: {error.strerror}; takes a free port of {host}"
            raise SettingError(text) from None

    async def leave(self) -> None:
        """Leave the client port to the other workers, and serve those who have come. What is open
        goes on; `stop` is to follow."""
        ports = self._client_ports()
        for port in ports:
            port.leave()
        loop = asyncio.get_running_loop()
        over = loop.time() + _LEAVE_SECONDS
        while loop.time() < over and any(port.at_work for port in ports):  # noqa: ASYNC110
            await asyncio.sleep(_LEAVE_LOOK_SECONDS)

    async def stop(self) -> None:
        """Drain. Every connection's `closed` is in the journal when this returns, unless the
        journal itself fails; then the next start closes the rest."""
        if self._node is None or self._port is None:
            return
        settings = self._settings
        self._node.draining = True
        await self.checkpoints.all()
        await self._node.give_up(timeout=_HANDSHAKE_SECONDS)
        await self.enforcement.drain(grace=settings.drain_grace, spread=settings.drain_spread)
        await self.tunnels.wait_empty(timeout=settings.close_grace + _CLOSE_MARGIN)
        ports = self._client_ports()
        for port in ports:
            port.close()
        await asyncio.gather(*(port.finished(timeout=_ANSWER_SECONDS) for port in ports))
        if len(self.tunnels):
            await self.tunnels.close()
        self._opened = False
        self._resolver.close()
        with suppress(LogError, TimeoutError):
            async with asyncio.timeout(_REPORT_SECONDS):
                await self.reporter.report()
        if not await self.recorder.flushed(timeout=_FLUSH_SECONDS):
            self._logger.error("journal_behind_at_stop", events=self.recorder.backlog)
        elif not await self.delivery.delivered(timeout=settings.forward_timeout):
            # The next process that opens this journal goes on with it.
            self._logger.warning("log_behind_at_stop", problems=self.delivery.problems)
        else:
            with suppress(LogError, TimeoutError):
                await self.recorder.watermark(ended=True)
                await self.delivery.delivered(timeout=settings.forward_timeout)
        await self.configuration.save()
        # Sockets of peers that are still sending; nothing is owed for them any more.
        await self.tunnels.close()

    def _client_ports(self) -> list[ClientPort]:
        return [port for port in (self._port, self._tls_port) if port is not None]

    async def _catch_up(self) -> None:
        """The loop that counts with the node what got a limit while it was open."""
        while True:
            await asyncio.sleep(_CATCH_UP_SECONDS)
            self.counts.catch_up(self._limits_of)

    async def _relay_runs(self) -> None:
        """The loop that ends with the relay: what is started anew has one that works."""
        await self._relay.wait_failed()
        raise RuntimeError("the relay has ended")

    def _limits_of(self, service_id: str) -> Limits | None:
        service = self.configuration.book.service(service_id)
        return service.limits if service else None

    def _decide(self, head: Head, server_name: str | None) -> Handoff | Refusal:
        if not self.configuration.seen:
            text = "this edge has not seen a configuration yet"
            return Refusal("no_configuration", text, retry_after=1)
        return decide(self.configuration.book, head, self._clock.now_ms(), server_name)

    def _owner_of(self, host: str) -> Owner | None:
        service = self.configuration.book.service_for(host)
        return Owner(service.customer_id, service.service_id) if service else None

    def _refresh(self) -> None:
        age_ms = self.configuration.age_ms
        self.metrics.rulebook_age.set(-1 if age_ms is None else age_ms / 1000)
        self.metrics.backlog.set(self.recorder.backlog)


def stop_seconds(settings: EdgeSettings) -> float:
    """The longest that an orderly stop takes: what a supervisor must grant before it kills."""
    drain = settings.drain_grace + settings.drain_spread + settings.close_grace + _CLOSE_MARGIN
    flush = _REPORT_SECONDS + _FLUSH_SECONDS + 2 * settings.forward_timeout
    return _HANDSHAKE_SECONDS + drain + _ANSWER_SECONDS + flush + _CLOSE_MARGIN


def chosen(settings: EdgeSettings) -> Implementation:
    """Raises SettingError where the relay that is asked for was not built."""
    name = active if settings.relay == "auto" else settings.relay
    if name not in IMPLEMENTATIONS:
        there = ", ".join(IMPLEMENTATIONS)
        raise SettingError(f"{variable('relay')} = {name}: it was not built; takes auto, {there}")
    return IMPLEMENTATIONS[name]


def assemble(
    settings: EdgeSettings,
    *,
    log: JournaledLog | EventLog,
    clock: Clock,
    journal: Spool | None = None,
    relay: Implementation | None = None,
    look_up: LookUp | None = None,
    listener: socket | None = None,
    appended_at: Callable[[], int | None] = lambda: None,
    reuse_port: bool = False,
    shared: Shared | None = None,
) -> Edge:
    """As `build`, with the parts in reach.

    appended_at: the log's own clock at its last acknowledgement, where it has one. reuse_port:
    other workers share the client port. shared: where the workers of the node count together.
    relay: in place of the one that the settings name. look_up: in place of the system's name
    look-up. listener: a listening socket in place of `edge_host` and `edge_port`.
    """
    return Edge(
        settings,
        log=log,
        journal=journal,
        clock=clock,
        appended_at=appended_at,
        reuse_port=reuse_port,
        shared=shared,
        relay=relay or chosen(settings),
        look_up=look_up,
        listener=listener,
    )


def build(
    settings: EdgeSettings,
    *,
    log: JournaledLog | EventLog,
    clock: Clock,
    journal: Spool | None = None,
    listener: socket | None = None,
    appended_at: Callable[[], int | None] = lambda: None,
    reuse_port: bool = False,
    shared: Shared | None = None,
) -> Service:
    """The edge as a service. Without a `journal`, `log` is the journal too. Opens nothing."""
    return assemble(
        settings,
        log=log,
        journal=journal,
        clock=clock,
        listener=listener,
        appended_at=appended_at,
        reuse_port=reuse_port,
        shared=shared,
    ).service
