"""The Python side of the relay in Rust: sockets in, ends out.

The relay's thread owns the sockets, and moves bytes without Python. It tells of ends in batches, by
a descriptor that the event loop watches. Counters are read from memory that both see.
"""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from socket import socket
from ssl import SSLSocket

from handoff_relay import _native
from handoff_relay.frames import may_be_sent
from handoff_relay.interface import (
    CLOSE_GRACE_MS,
    IN_FLIGHT_MAX,
    RELAY_FAILED,
    BodyCounters,
    End,
    Messages,
    OnEnd,
    RelayLimits,
    Tunnel,
)
from handoff_relay.tls import Identity, Stream, TlsStream


class NativeTunnel:
    """See `interface.Tunnel`."""

    __slots__ = ("_core",)

    def __init__(self, core: _native.Tunnel) -> None:
        self._core = core

    def counters(self) -> BodyCounters:
        return BodyCounters._make(self._core.counters())

    def messages(self) -> Messages:
        return Messages._make(self._core.messages())

    def end(self, code: int, reason_text: str, cause: str) -> None:
        if not may_be_sent(code):
            raise ValueError(f"code is {code}; allowed: 1000-1003, 1007-1014, 3000-4999")
        # A lone surrogate has no bytes of its own.
        text = reason_text.encode("utf-8", "replace").decode()
        self._core.end(code, text, cause)


class NativeRelay:
    """See `interface.Relay` and `interface.NewRelay`. Opens nothing before the first `start`."""

    def __init__(
        self,
        *,
        time_ns: Callable[[], int] | None = None,
        tick_ms: int = 500,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self._time_ns = time_ns
        self._tick_ms = tick_ms
        self._loop = loop
        self._core: _native.Core | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._failed = asyncio.Event()
        self._closed = False
        self._waking = False

    @property
    def open_tunnels(self) -> int:
        return self._core.open_tunnels if self._core is not None else 0

    def buffered_bytes(self) -> int:
        return self._core.held if self._core is not None else 0

    @property
    def failed(self) -> bool:
        return self._failed.is_set()

    async def wait_failed(self) -> None:
        await self._failed.wait()

    def start(
        self,
        client_sock: Stream,
        origin_sock: Stream,
        *,
        to_origin: bytes = b"",
        to_client: bytes = b"",
        client_eof: bool = False,
        limits: RelayLimits,
        on_end: OnEnd,
    ) -> Tunnel:
        if self._closed:
            raise RuntimeError("the relay is closed")
        for name, early in (("to_origin", to_origin), ("to_client", to_client)):
            if len(early) > IN_FLIGHT_MAX:
                raise ValueError(f"{name} has {len(early)} bytes; allowed: {IN_FLIGHT_MAX}")
        for stream in (client_sock, origin_sock):
            if not isinstance(stream, (socket, _native.TlsStream)) or isinstance(stream, SSLSocket):
                raise ValueError(f"a {type(stream).__name__} is no stream of the native relay")
            if stream.fileno() < 0:
                raise ValueError("a socket is closed")
        core = self._core or self._begin()
        if not self._waking:
            # To wake the thread costs more than to start a tunnel: once for all of a loop's turn.
            self._waking = True
            assert self._loop is not None
            self._loop.call_soon(self._wake, core)
        return NativeTunnel(
            core.start(
                _taken(client_sock),
                _taken(origin_sock),
                to_origin,
                to_client,
                client_eof,
                (
                    limits.idle_ms,
                    limits.half_closed_ms,
                    limits.max_duration_ms,
                    limits.bytes_per_second,
                    limits.close_grace_ms,
                ),
                limits.pace_key if limits.bytes_per_second else "",
                on_end,
            )
        )

    async def close(self, *, cause: str = "drained") -> None:
        self._closed = True
        core = self._core
        if core is None:
            return
        if not core.gone:
            core.cut(cause)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE_MS / 1000):
                while self._core is not None and not self._at_rest(core):
                    self._quiet.clear()
                    await self._quiet.wait()
        if self._core is not None:
            self._core = None
            self._end(core)
            self._quiet.set()

    def _begin(self) -> _native.Core:
        self._loop = self._loop or asyncio.get_running_loop()
        now_ns = self._time_ns() if self._time_ns is not None else None
        core = self._core = _native.Core(now_ns, self._tick_ms)
        self._loop.add_reader(core.fileno(), self._on_news)
        if self._time_ns is not None:
            self._tick()
        return core

    def _wake(self, core: _native.Core) -> None:
        self._waking = False
        core.wake()

    def _end(self, core: _native.Core) -> None:
        assert self._loop is not None
        self._loop.remove_reader(core.fileno())
        if self._ticking is not None:
            self._ticking.cancel()
        core.stop()

    def _tick(self) -> None:
        """A clock that is moved by hand is carried to the relay's thread, which cannot ask."""
        assert self._loop is not None and self._time_ns is not None and self._core is not None
        self._core.set_now(self._time_ns())
        self._ticking = self._loop.call_later(self._tick_ms / 1000, self._tick)

    @staticmethod
    def _at_rest(core: _native.Core) -> bool:
        return not core.open_tunnels and (core.idle or core.gone)

    def _on_news(self) -> None:
        core = self._core
        assert core is not None
        # Asked first: what it said before it ended is then among the news.
        gone = core.gone
        ends, complaints = core.take_news()
        for text in complaints:
            self._complain("the relay failed on a tunnel", RuntimeError(text))
        for on_end, cause, closed_by, close_code, counters, messages in ends:
            end = End(
                cause,
                closed_by,
                close_code,
                BodyCounters._make(counters),
                Messages._make(messages),
            )
            self._tell(on_end, end)
        if gone:
            self._abandon(core)
        self._quiet.set()

    def _abandon(self, core: _native.Core) -> None:
        """The thread ended by a fault, and all sockets with it: nobody else will report them."""
        left, closing = core.abandon(), self._closed
        # Before the ends are told: who hears of one may ask for the reason, or start anew.
        self._closed = True
        self._failed.set()
        if left or not closing:
            self._complain("the relay's thread ended", RuntimeError("see standard error"))
        for on_end, counters, messages in left:
            end = End(
                RELAY_FAILED,
                "edge",
                None,
                BodyCounters._make(counters),
                Messages._make(messages),
            )
            self._tell(on_end, end)
        assert self._loop is not None
        self._loop.remove_reader(core.fileno())

    def _tell(self, on_end: OnEnd, end: End) -> None:
        try:
            on_end(end)
        except Exception as error:
            self._complain("on_end raised", error)

    def _complain(self, message: str, error: Exception) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": message, "exception": error})


def _taken(stream: Stream) -> "int | _native.TlsStream":
    """For the relay's thread, which owns it from here on."""
    if isinstance(stream, _native.TlsStream):
        return stream
    assert isinstance(stream, socket)
    return stream.detach()


class NativeServerTls:
    """See `tls.ServerTls` and `tls.NewServerTls`."""

    def __init__(self, identities: Sequence[Identity]) -> None:
        self._core = _native.ServerTls(
            [(list(identity.names), identity.chain, identity.key) for identity in identities]
        )

    def wrap(self, sock: socket) -> TlsStream:
        return self._core.wrap(sock.detach())


class NativeClientTls:
    """See `tls.ClientTls` and `tls.NewClientTls`."""

    def __init__(self, extra_ca: Path | None) -> None:
        pem = extra_ca.read_bytes() if extra_ca is not None else b""
        if extra_ca is not None and b"-----BEGIN CERTIFICATE-----" not in pem:
            raise ValueError("no certificate in PEM is in it")
        self._core = _native.ClientTls(pem)

    def wrap(self, sock: socket, server_name: str) -> TlsStream:
        self._core.check(server_name)
        return self._core.wrap(sock.detach(), server_name)
