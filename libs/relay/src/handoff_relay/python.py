"""The pure Python relay: the tunnels' course, from `start` to their one `End`.

It works on the sockets themselves and not on transports: a byte counts when the kernel took it,
FIN and RST are seen as what they are, TLS needs no second buffer, and asyncio's and uvloop's event
loops behave alike. Its own epoll, nested in the loop's, costs the loop one call for a whole batch
of ready sockets (`watch`). Bytes are moved in `flow`; the state of a tunnel, and the questions
asked of it, are in `pair`; frames in `frames`, sockets and TLS in `sockets`. Deadlines wait in a
wheel behind one timer tick.

`flow` only marks what it met. `_proceed` draws the conclusions, last of all, since afterwards the
tunnel may be over and its sides gone.
"""

import asyncio
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socket import socket
from typing import Final

from handoff_relay import sockets
from handoff_relay.flow import Flow
from handoff_relay.interface import (
    CLOSE_GRACE_MS,
    IN_FLIGHT_MAX,
    RELAY_FAILED,
    OnEnd,
    RelayLimits,
    Tunnel,
)
from handoff_relay.pacing import Pacing
from handoff_relay.pair import MS, PairTunnel, Side
from handoff_relay.tls import Stream
from handoff_relay.watch import ERROR, GONE, IN, OUT, Lingering, Watch
from handoff_relay.wheel import Wheel

_GOING_AWAY: Final = 1001


class PythonRelay:
    """See `interface.Relay` and `interface.NewRelay`. Opens nothing before the first `start`."""

    def __init__(
        self,
        *,
        time_ns: Callable[[], int] | None = None,
        tick_ms: int = 500,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self._time_ns = time_ns or time.monotonic_ns
        self._tick_ms = tick_ms
        self._loop = loop
        self._engine: _Engine | None = None
        self._closed = False

    @property
    def open_tunnels(self) -> int:
        return len(self._engine.tunnels) if self._engine is not None else 0

    def buffered_bytes(self) -> int:
        tunnels = self._engine.tunnels if self._engine is not None else ()
        return sum(
            len(side.queue)
            for tunnel in tunnels
            if tunnel.final is None
            for side in (tunnel.client, tunnel.origin)
            if side.queue is not None
        )

    @property
    def failed(self) -> bool:
        return False

    async def wait_failed(self) -> None:
        await asyncio.Event().wait()

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
            if not isinstance(stream, socket):
                raise ValueError(f"a {type(stream).__name__} is no stream of the Python relay")
            if stream.fileno() < 0:
                raise ValueError("a socket is closed")
        assert isinstance(client_sock, socket) and isinstance(origin_sock, socket)
        if self._engine is None:
            loop = self._loop or asyncio.get_running_loop()
            self._engine = _Engine(loop, self._time_ns, self._tick_ms)
        engine = self._engine
        tunnel = engine.open(client_sock, origin_sock, limits, on_end)
        engine.begin(tunnel, to_origin, to_client, client_eof=client_eof)
        return tunnel

    async def close(self, *, cause: str = "drained") -> None:
        self._closed = True
        if self._engine is not None:
            await self._engine.close(cause)


class _Engine:
    """A relay on its event loop."""

    def __init__(self, loop: AbstractEventLoop, time_ns: Callable[[], int], tick_ms: int) -> None:
        self.tunnels: set[PairTunnel] = set()
        """Those whose end has not been reported; nothing else need hold them."""
        self._loop = loop
        self._time_ns = time_ns
        self._tick_s = tick_ms / 1000
        self._watch = Watch(loop, self._on_ready, self._resume)
        self._pacing = Pacing(loop, self._resume)
        self._flow = Flow(self._watch, self._pacing, self._half_closed)
        self._wheel: Wheel[PairTunnel | Lingering] = Wheel(tick_ms * MS)
        self._ticking: asyncio.TimerHandle | None = None
        self._ended: list[PairTunnel] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    # --- from the caller ---------------------------------------------------------------------

    def open(
        self, client: socket, origin: socket, limits: RelayLimits, on_end: OnEnd
    ) -> PairTunnel:
        """Take two sockets over, or raise and leave them alone."""
        for sock in (client, origin):
            sockets.prepare(sock)
        self._watch.add(client, origin)
        now = self._time_ns()
        tunnel = PairTunnel(
            client,
            origin,
            limits=limits,
            pace=self._pacing.join(limits, now),
            on_end=on_end,
            order=self._order_end,
            now_ns=now,
        )
        self._watch.know(tunnel.client)
        self._watch.know(tunnel.origin)
        self.tunnels.add(tunnel)
        self._empty.clear()
        self._wheel.place(tunnel, tunnel.due_ns())
        self._keep_ticking()
        return tunnel

    def begin(
        self, tunnel: PairTunnel, to_origin: bytes, to_client: bytes, *, client_eof: bool
    ) -> None:
        """What was read before the tunnel was there goes through it first."""

        def step() -> None:
            now = tunnel.started_ns
            if to_origin:
                self._flow.early(tunnel.client, to_origin, now)
            if to_client:
                self._flow.early(tunnel.origin, to_client, now)
            if client_eof:
                self._flow.finished(tunnel.client)
            self._proceed(tunnel)

        self._guarded(tunnel, step)

    async def close(self, cause: str) -> None:
        for tunnel in list(self.tunnels):
            if tunnel.final is None:
                tunnel.note(cause, "edge")
                self._finish(tunnel, cut=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), CLOSE_GRACE_MS / 1000)
        if not self._closed:
            self._closed = True
            for watched in list(self._watch.by_fd.values()):
                if isinstance(watched, Lingering):
                    self._let_go(watched)
            self._pacing.stop()
            self._watch.close()

    # --- from the event loop -----------------------------------------------------------------

    def _on_ready(self) -> None:
        """Some of the sockets are ready: one batch, then the loop's other work."""
        now = self._time_ns()
        by_fd = self._watch.by_fd
        for fd, events in self._watch.poll():
            # A socket closed earlier in this batch is not there any more, and its number cannot
            # have been given out again: only `open` does that, and it is never called from here.
            watched = by_fd.get(fd)
            if isinstance(watched, Side):
                try:
                    self._on_events(watched, events, now)
                except Exception as error:
                    self._failed(watched.tunnel, error)
            elif watched is not None and not self._flow.drop(watched.sock):
                self._let_go(watched)

    def _on_events(self, side: Side, events: int, now: int) -> None:
        """A side can be read, or written, or is in error."""
        watched_for = side.events
        if not watched_for:
            self._hung_up(side)
            return
        tunnel, flow = side.tunnel, self._flow
        if events & GONE:
            if side.tls and events & ERROR and side.failure is None:
                side.failure = sockets.pending_error(side.sock)
            events = watched_for
        can_write, can_read = events & OUT, events & IN
        if can_read and side.wants_read:
            side.wants_read = False
            can_write = 1
        if can_write and side.wants_write:
            side.wants_write = False
            can_read = 1
        if can_write and side.queue is not None and not side.wants_read:
            flow.flush(side)
            tunnel.last_ns = now
            self._watch.attend(side.other)
        if can_read and side.readable():
            flow.read(side, now)
        if tunnel.half_closed or tunnel.ending_ns:
            self._proceed(tunnel)
        else:
            self._watch.attend(side)

    def _hung_up(self, side: Side) -> None:
        """An error or a hang-up of a side that is neither read nor written now."""
        error = sockets.pending_error(side.sock)
        if error is not None:
            side.failure = error
            self._flow.lost(side, error)
        # Epoll would tell of it again and again. Whatever it sent before can still be read later.
        self._watch.ignore(side)
        self._proceed(side.tunnel)

    def _resume(self, side: Side) -> None:
        """Read a side without having been told by epoll that there is something."""
        tunnel = side.tunnel
        if tunnel.final is None:
            self._guarded(tunnel, partial(self._read_on, side))

    def _read_on(self, side: Side) -> None:
        if side.readable() and not side.wants_write:
            self._flow.read(side, self._time_ns())
        self._proceed(side.tunnel)

    def _tick(self) -> None:
        self._ticking = None
        now = self._time_ns()
        for entry in self._wheel.take(now):
            if isinstance(entry, PairTunnel):
                self._guarded(entry, partial(self._check, entry, now))
            elif now >= entry.deadline_ns:
                self._let_go(entry)
            else:
                self._wheel.place(entry, entry.deadline_ns)
        self._keep_ticking()

    def _keep_ticking(self) -> None:
        if self._ticking is None and not self._empty.is_set():
            self._ticking = self._loop.call_later(self._tick_s, self._tick)

    def _guarded(self, tunnel: PairTunnel, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._failed(tunnel, error)

    def _failed(self, tunnel: PairTunnel, error: Exception) -> None:
        """A fault of ours: it ends this tunnel, and no other."""
        self._complain("the relay failed on a tunnel", error)
        if tunnel.final is None:
            tunnel.cause, tunnel.closed_by = RELAY_FAILED, "edge"
            self._finish(tunnel, cut=True)

    def _complain(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})

    # --- the course of a tunnel --------------------------------------------------------------

    def _half_closed(self, tunnel: PairTunnel) -> None:
        if not tunnel.half_closed:
            tunnel.half_closed = True
            tunnel.last_ns = self._time_ns()
            self._wheel.advance(tunnel, tunnel.due_ns())

    def _proceed(self, tunnel: PairTunnel) -> None:
        """Pass ends on, finish where both sides came to theirs, and wait for what is next."""
        client, origin = tunnel.client, tunnel.origin
        for side in (client, origin):
            if side.owed_end():
                self._flow.pass_end(side)
        if tunnel.over():
            self._finish(tunnel)
        else:
            self._watch.attend(client)
            self._watch.attend(origin)

    def _order_end(self, tunnel: PairTunnel, code: int, reason: str, cause: str) -> None:
        """An orderly end. Without a cause, the present one stays."""
        if tunnel.final is not None or tunnel.ending_ns:
            return
        if cause:
            tunnel.note(cause, "edge")
        tunnel.close = (code, reason)
        tunnel.ending_ns = self._time_ns() + tunnel.limits.close_grace_ms * MS
        self._wheel.place(tunnel, tunnel.ending_ns)

        def step() -> None:
            self._flow.seal(tunnel.client)
            self._flow.seal(tunnel.origin)
            self._proceed(tunnel)

        self._guarded(tunnel, step)

    def _check(self, tunnel: PairTunnel, now: int) -> None:
        """A deadline of this tunnel may have come."""
        if tunnel.client.paced or tunnel.origin.paced:
            # It is not the peers who are silent.
            tunnel.last_ns = now
        due = tunnel.due_ns()
        if now < due:
            self._wheel.place(tunnel, due)
            return
        if tunnel.ending_ns:
            self._finish(tunnel)
            return
        longest = tunnel.limits.max_duration_ms
        if longest is not None and now - tunnel.started_ns >= longest * MS:
            self._order_end(tunnel, _GOING_AWAY, "maximum duration reached", "max_duration")
        elif tunnel.half_closed:
            self._order_end(tunnel, _GOING_AWAY, "the other side has closed", "")
        else:
            self._order_end(tunnel, _GOING_AWAY, "idle for too long", "idle_timeout")

    def _finish(self, tunnel: PairTunnel, *, cut: bool = False) -> None:
        """Let go of both sockets and have the end reported. `cut`: without any ceremony."""
        for side in (tunnel.client, tunnel.origin):
            self._release(side, cut=cut)
        self._wheel.remove(tunnel)
        self._pacing.leave(tunnel)
        tunnel.conclude()
        if not self._ended:
            self._loop.call_soon(self._report)
        self._ended.append(tunnel)

    def _release(self, side: Side, *, cut: bool) -> None:
        lingers = not (cut or side.eof or side.broken or side.queue)
        if not cut and (lingers or side.tls):
            try:
                sockets.say_end(side.sock)
            except OSError:
                lingers = False
        if lingers and side.registered:
            deadline = self._time_ns() + CLOSE_GRACE_MS * MS
            self._wheel.place(self._watch.linger(side, deadline), deadline)
        else:
            self._watch.forget(side)
            side.sock.close()

    def _let_go(self, lingering: Lingering) -> None:
        self._wheel.remove(lingering)
        self._watch.let_go(lingering)
        self._settle()

    def _report(self) -> None:
        ended, self._ended = self._ended, []
        for tunnel in ended:
            self.tunnels.discard(tunnel)
            assert tunnel.final is not None
            try:
                tunnel.on_end(tunnel.final)
            except Exception as error:
                self._complain("on_end raised", error)
        self._settle()

    def _settle(self) -> None:
        """Rest where nothing is left to wait for."""
        if not self._watch.by_fd and not self.tunnels:
            self._empty.set()
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None
