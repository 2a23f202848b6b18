"""The pure Python relay: one epoll of its own, watched by the event loop, and one timer tick.

It works on the sockets themselves and not on transports: a byte counts when the kernel took it,
FIN and RST are seen as what they are, TLS needs no second buffer, and asyncio's and uvloop's event
loops behave alike. Its own epoll, nested in the loop's, costs the loop one call for a whole batch
of ready sockets, and tells of a reset also where reading is paused.

Bytes are received into one buffer that all tunnels share and sent on at once; only what the kernel
did not take is copied, and then the sending peer is not read until it has gone. An idle tunnel so
holds no buffer, and a direction never holds more than one.

The states of a tunnel are in `pair`, the frames in `frames`, sockets and TLS in `sockets`.
"""

import asyncio
import os
import select
import ssl
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socket import socket
from typing import Final

from handoff_relay import sockets
from handoff_relay.frames import close_frame
from handoff_relay.interface import (
    CLOSE_GRACE_MS,
    IN_FLIGHT_MAX,
    RELAY_FAILED,
    OnEnd,
    RelayLimits,
    Tunnel,
)
from handoff_relay.pace import Pace
from handoff_relay.pair import MS, PairTunnel, Side
from handoff_relay.wheel import Wheel

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_GONE: Final = select.EPOLLERR | select.EPOLLHUP
_BATCH: Final = 128
"""Ready sockets handled before the event loop gets its turn."""
_PACE_TICK_S: Final = 0.02
_GOING_AWAY: Final = 1001


class _Lingering:
    """A socket whose tunnel is over but whose peer may still be sending. Closed at once, it would
    answer with RST, and that can cost the peer what it has not read yet: so it is read, and
    dropped, until the peer ends too."""

    __slots__ = ("deadline_ns", "fd", "slot", "sock")

    def __init__(self, sock: socket, fd: int, deadline_ns: int) -> None:
        self.sock = sock
        self.fd = fd
        self.deadline_ns = deadline_ns
        self.slot = -1


class PythonRelay:
    """See `interface.Relay` and `interface.NewRelay`."""

    def __init__(
        self,
        *,
        time_ns: Callable[[], int] = time.monotonic_ns,
        tick_ms: int = 500,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self._time_ns = time_ns
        self._tick_ms = tick_ms
        self._loop = loop
        self._epoll: select.epoll | None = None
        self._wheel: Wheel[PairTunnel | _Lingering] = Wheel(tick_ms * MS)
        self._watched: dict[int, Side | _Lingering] = {}
        """By file descriptor; with `_tunnels` what keeps everything alive."""
        self._tunnels: set[PairTunnel] = set()
        """Those whose end has not been reported."""
        self._ended: list[PairTunnel] = []
        self._again: list[Side] = []
        """TLS sides that may hold bytes which epoll cannot see."""
        self._paces: dict[str, Pace] = {}
        self._paced: deque[Side] = deque()
        self._ticking: asyncio.TimerHandle | None = None
        self._pacing: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self._closed = False
        self._buffer = bytearray(IN_FLIGHT_MAX)
        self._view = memoryview(self._buffer)

    @property
    def open_tunnels(self) -> int:
        return len(self._tunnels)

    def start(
        self,
        client_sock: socket,
        origin_sock: socket,
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
        for sock in (client_sock, origin_sock):
            sockets.prepare(sock)
        epoll = self._open()
        epoll.register(client_sock.fileno(), 0)
        try:
            epoll.register(origin_sock.fileno(), 0)
        except OSError:
            epoll.unregister(client_sock.fileno())
            raise
        now = self._time_ns()
        tunnel = PairTunnel(
            client_sock,
            origin_sock,
            limits=limits,
            pace=self._pace_for(limits, now),
            on_end=on_end,
            order=self._order_end,
            now_ns=now,
        )
        self._tunnels.add(tunnel)
        self._settled.clear()
        client, origin = tunnel.client, tunnel.origin
        for side in (client, origin):
            side.registered = True
            self._watched[side.fd] = side
        self._wheel.place(tunnel, tunnel.due_ns())
        self._keep_ticking()
        self._guarded(tunnel, partial(self._begin, tunnel, to_origin, to_client, client_eof))
        return tunnel

    async def close(self, *, cause: str = "drained") -> None:
        self._closed = True
        for tunnel in list(self._tunnels):
            if tunnel.final is None:
                tunnel.note(cause, "edge")
                self._finish(tunnel, cut=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), CLOSE_GRACE_MS / 1000)
        for watched in list(self._watched.values()):
            if isinstance(watched, _Lingering):
                self._let_go(watched)
        for timer in (self._ticking, self._pacing):
            if timer is not None:
                timer.cancel()
        self._ticking = self._pacing = None
        if self._epoll is not None:
            assert self._loop is not None
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    # --- the event loop's side ---------------------------------------------------------------

    def _open(self) -> select.epoll:
        if self._epoll is None:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._on_ready)
        return self._epoll

    def _on_ready(self) -> None:
        """Some of the sockets are ready: one batch, then the loop's other work."""
        assert self._epoll is not None
        now = self._time_ns()
        watched_by_fd = self._watched
        for fd, events in self._epoll.poll(0, _BATCH):
            # A socket closed earlier in this batch is not there any more, and its number cannot
            # have been given out again: only `start` does that, and it is never called from here.
            watched = watched_by_fd.get(fd)
            if watched is None:
                continue
            if isinstance(watched, Side):
                try:
                    self._on_events(watched, events, now)
                except Exception as error:
                    self._failed(watched.tunnel, error)
            else:
                self._drop(watched)

    def _on_events(self, side: Side, events: int, now: int) -> None:
        watched_for = side.events
        if not watched_for:
            self._hung_up(side)
            return
        ready = watched_for if events & _GONE else events
        tunnel = side.tunnel
        if side.tls and events & select.EPOLLERR and side.failure is None:
            side.failure = sockets.pending_error(side.sock)
        if ready & _OUT:
            if side.wants_write:
                side.wants_write = False
                ready |= _IN
            if side.queue is not None and not side.wants_read:
                self._write(side, now)
                if tunnel.final is not None:
                    return
        if ready & _IN:
            if side.wants_read:
                side.wants_read = False
                if side.queue is not None:
                    self._write(side, now)
                    if tunnel.final is not None:
                        return
            if side.readable():
                self._read(side, now)
                if tunnel.final is not None:
                    return
        self._watch(side)

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
        if self._ticking is None and self._watched and not self._settled.is_set():
            assert self._loop is not None
            self._ticking = self._loop.call_later(self._tick_ms / 1000, self._tick)

    def _report(self) -> None:
        ended, self._ended = self._ended, []
        for tunnel in ended:
            self._tunnels.discard(tunnel)
            assert tunnel.final is not None
            try:
                tunnel.on_end(tunnel.final)
            except Exception as error:
                self._complain("on_end raised", error)
        self._settle()

    def _settle(self) -> None:
        if not self._watched and not self._tunnels:
            self._settled.set()
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

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
        assert self._loop is not None
        self._loop.call_exception_handler({"message": message, "exception": error})

    # --- bytes -------------------------------------------------------------------------------
    # What reads or writes only marks what it met; `_proceed` draws the conclusions, last of all,
    # since afterwards the tunnel may be over and its sides gone.

    def _begin(
        self, tunnel: PairTunnel, to_origin: bytes, to_client: bytes, client_eof: bool
    ) -> None:
        """What was read before the tunnel was there goes through it first."""
        client, origin = tunnel.client, tunnel.origin
        for source, early in ((client, to_origin), (origin, to_client)):
            size = len(early)
            if size:
                self._buffer[:size] = early
                self._arrived(source, size, tunnel.started_ns)
        if client_eof:
            self._finished(client)
        self._proceed(tunnel)

    def _read(self, side: Side, now: int) -> None:
        """Receive once and send on."""
        tunnel = side.tunnel
        size = IN_FLIGHT_MAX
        if tunnel.pace is not None and not side.other.sealed:
            size = min(size, tunnel.pace.share(now))
            if not size:
                self._wait_for_pace(side)
                return
        if side.tls:
            size = self._receive_tls(side, size)
        else:
            try:
                size = side.sock.recv_into(self._view, size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                side.error = error
                size = 0
        if size > 0:
            self._arrived(side, size, now)
        elif not size:
            self._finished(side)
        if tunnel.half_closed or tunnel.ending_ns:
            self._proceed(tunnel)

    def _receive_tls(self, side: Side, size: int) -> int:
        assert isinstance(side.sock, ssl.SSLSocket)
        if side.ended:
            return 0
        count, wants, side.error = sockets.receive_tls(side.sock, self._view, size, side.failure)
        side.wants_write = wants == _OUT
        side.ended = wants == sockets.ENDED
        if count > 0 and wants in (0, sockets.ENDED):
            self._read_again(side)
        return count

    def _arrived(self, side: Side, size: int, now: int) -> None:
        """`size` bytes from this side are in the buffer."""
        tunnel, other, follower = side.tunnel, side.other, side.follower
        side.received += size
        tunnel.last_ns = now
        if other.sealed:
            follower.feed(self._buffer, 0, size)
            return
        if tunnel.pace is not None:
            tunnel.pace.spend(size)
        if tunnel.ending_ns:
            boundary = follower.feed_to_boundary(self._buffer, 0, size)
            if follower.at_boundary and not other.follower.closed:
                self._send(other, boundary)
                self._seal(other)
                follower.feed(self._buffer, boundary, size)
                return
            follower.feed(self._buffer, boundary, size)
            self._send(other, size)
            self._seal(other)
            return
        follower.feed(self._buffer, 0, size)
        if follower.closed:
            tunnel.note(f"{side.name}_closed", side.name)
            self._half_close(tunnel)
        self._send(other, size)

    def _send(self, side: Side, size: int) -> None:
        """Send the first `size` bytes of the buffer; what the kernel does not take is queued."""
        if side.broken or not size:
            return
        data = self._view[:size]
        try:
            if side.tls:
                count = self._send_tls(side, data)
            else:
                count = side.sock.send(data)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            self._lost(side, error)
            return
        side.sent += count
        if count < size:
            side.queue = memoryview(bytes(data[count:]))
            self._watch(side)
            self._watch(side.other)

    def _send_tls(self, side: Side, data: memoryview) -> int:
        assert isinstance(side.sock, ssl.SSLSocket)
        count, wants = sockets.send_tls(side.sock, data)
        side.wants_read = wants == _IN
        return count

    def _write(self, side: Side, now: int) -> None:
        """Send what is queued, and go on reading what is to follow it."""
        self._flush(side)
        tunnel = side.tunnel
        tunnel.last_ns = now
        if tunnel.half_closed or tunnel.ending_ns:
            self._proceed(tunnel)
        elif side.queue is None:
            self._watch(side.other)

    def _flush(self, side: Side) -> None:
        queue = side.queue
        assert queue is not None
        try:
            count = self._send_tls(side, queue) if side.tls else side.sock.send(queue)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(side, error)
            return
        left = len(queue) - count
        side.sent += min(count, len(queue) - side.own)
        side.own = min(side.own, left)
        side.queue = queue[count:] if left else None

    def _hung_up(self, side: Side) -> None:
        """An error or a hang-up of a side that is neither read nor written now."""
        error = sockets.pending_error(side.sock)
        if error is not None:
            self._lost(side, error)
        # Epoll would tell of it again and again. Whatever it sent before can still be read later.
        self._unwatch(side)
        self._proceed(side.tunnel)

    def _finished(self, side: Side) -> None:
        """Nothing more comes from this side, in order or with the error that was met."""
        side.eof = True
        side.wants_write = False
        if side.error is not None:
            self._lost(side, side.error)
            return
        if side.tls:
            # It takes nothing more either: TLS has no half-close.
            self._give_up(side)
        side.tunnel.note(f"{side.name}_closed", side.name, yields=not side.tls)
        self._half_close(side.tunnel)

    def _lost(self, side: Side, error: OSError) -> None:
        """The connection to this side is gone; what came from it before may still be unread."""
        self._give_up(side)
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # A broken TLS layer reads no more either.
            side.eof = True
        error = side.failure or error
        if sockets.is_dead(error):
            side.tunnel.note("dead_peer", side.name)
        else:
            side.tunnel.note(f"{side.name}_reset", side.name)
        self._half_close(side.tunnel)

    def _give_up(self, side: Side) -> None:
        side.broken = True
        side.queue = None
        side.own = 0
        side.wants_read = False

    # --- the course of a tunnel --------------------------------------------------------------

    def _half_close(self, tunnel: PairTunnel) -> None:
        if not tunnel.half_closed:
            tunnel.half_closed = True
            tunnel.last_ns = self._time_ns()
            self._wheel.advance(tunnel, tunnel.due_ns())

    def _proceed(self, tunnel: PairTunnel) -> None:
        """Pass ends on, and finish where both sides came to theirs."""
        if tunnel.final is not None:
            return
        for side in (tunnel.client, tunnel.origin):
            if side.owed_end():
                self._pass_end(side)
        if tunnel.over():
            self._finish(tunnel)
        else:
            self._watch(tunnel.client)
            self._watch(tunnel.origin)

    def _pass_end(self, side: Side) -> None:
        """Tell this side that nothing more comes."""
        if side.tls:
            # Being told, it could answer nothing; after a Close frame it knows and will answer.
            if not (side.told or side.other.follower.closed):
                side.eof = True
            return
        try:
            sockets.say_end(side.sock)
            side.fin_sent = True
        except OSError as error:
            self._lost(side, error)

    def _order_end(self, tunnel: PairTunnel, code: int, reason: str, cause: str) -> None:
        """An orderly end. Without a cause, the present one stays."""
        if tunnel.final is not None or tunnel.ending_ns:
            return
        if cause:
            tunnel.note(cause, "edge")
        tunnel.close = (code, reason)
        tunnel.ending_ns = self._time_ns() + tunnel.limits.close_grace_ms * MS
        self._wheel.place(tunnel, tunnel.ending_ns)
        self._guarded(tunnel, partial(self._start_end, tunnel))

    def _start_end(self, tunnel: PairTunnel) -> None:
        self._seal(tunnel.client)
        self._seal(tunnel.origin)
        self._proceed(tunnel)

    def _seal(self, side: Side) -> None:
        """At an orderly end: put our Close frame behind what goes to this side, if now is the
        moment, or see that none can be."""
        tunnel, source = side.tunnel, side.other.follower
        if side.sealed:
            return
        if side.broken or side.fin_sent or not source.valid:
            side.sealed = True
        elif source.closed or side.follower.closed:
            # The peers are closing by themselves; that goes on.
            return
        elif source.at_boundary:
            assert tunnel.close is not None
            code, reason = tunnel.close
            frame = close_frame(code, reason, os.urandom(4) if side.name == "origin" else None)
            side.sealed = side.told = True
            side.own = len(frame)
            side.queue = memoryview(frame if side.queue is None else bytes(side.queue) + frame)
            if not side.wants_read:
                self._flush(side)
        elif side.other.eof:
            side.sealed = True

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
        self._leave_pace(tunnel)
        tunnel.conclude()
        assert self._loop is not None
        if not self._ended:
            self._loop.call_soon(self._report)
        self._ended.append(tunnel)

    def _release(self, side: Side, *, cut: bool) -> None:
        sock = side.sock
        lingers = not (cut or side.eof or side.broken or side.queue)
        if not cut and (lingers or side.tls):
            try:
                sockets.say_end(sock)
            except OSError:
                lingers = False
        if lingers and side.registered:
            assert self._epoll is not None
            self._epoll.modify(side.fd, _IN)
            lingering = _Lingering(sock, side.fd, self._time_ns() + CLOSE_GRACE_MS * MS)
            self._watched[side.fd] = lingering
            self._wheel.place(lingering, lingering.deadline_ns)
        else:
            self._unwatch(side)
            del self._watched[side.fd]
            sock.close()

    def _drop(self, lingering: _Lingering) -> None:
        try:
            if lingering.sock.recv_into(self._view):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._let_go(lingering)

    def _let_go(self, lingering: _Lingering) -> None:
        assert self._epoll is not None
        self._wheel.remove(lingering)
        del self._watched[lingering.fd]
        self._epoll.unregister(lingering.fd)
        lingering.sock.close()
        self._settle()

    # --- epoll -------------------------------------------------------------------------------

    def _watch(self, side: Side) -> None:
        """Have epoll watch for what this side waits for."""
        events = 0
        if side.readable():
            events = _OUT if side.wants_write else _IN
        if side.queue is not None:
            events |= _IN if side.wants_read else _OUT
        if events == side.events and (side.registered or not events):
            return
        assert self._epoll is not None
        if side.registered:
            self._epoll.modify(side.fd, events)
        elif events:
            self._epoll.register(side.fd, events)
            side.registered = True
        if side.tls and events & ~side.events & _IN:
            self._read_again(side)
        side.events = events

    def _unwatch(self, side: Side) -> None:
        if side.registered:
            assert self._epoll is not None
            self._epoll.unregister(side.fd)
            side.registered = False
            side.events = 0

    def _read_again(self, side: Side) -> None:
        assert self._loop is not None
        if not self._again:
            self._loop.call_soon(self._on_again)
        self._again.append(side)

    def _on_again(self) -> None:
        sides, self._again = self._again, []
        now = self._time_ns()
        for side in sides:
            self._resume(side, now)

    def _resume(self, side: Side, now: int) -> None:
        """Read a side without having been told by epoll that there is something."""
        tunnel = side.tunnel
        if tunnel.final is not None or not side.readable() or side.wants_write:
            return
        try:
            self._read(side, now)
            if tunnel.final is None:
                self._watch(side)
        except Exception as error:
            self._failed(tunnel, error)

    # --- pace --------------------------------------------------------------------------------

    def _pace_for(self, limits: RelayLimits, now: int) -> Pace | None:
        rate = limits.bytes_per_second
        if rate is None:
            return None
        key = limits.pace_key
        pace = self._paces.get(key) if key else None
        if pace is None:
            pace = Pace(rate, now)
            if key:
                self._paces[key] = pace
        elif pace.rate != rate:
            pace.change(rate, now)
        pace.holders += 1
        return pace

    def _leave_pace(self, tunnel: PairTunnel) -> None:
        pace = tunnel.pace
        if pace is not None:
            pace.holders -= 1
            if not pace.holders and tunnel.limits.pace_key:
                del self._paces[tunnel.limits.pace_key]

    def _wait_for_pace(self, side: Side) -> None:
        assert self._loop is not None and side.tunnel.pace is not None
        side.paced = True
        side.tunnel.pace.waiting += 1
        self._paced.append(side)
        if self._pacing is None:
            self._pacing = self._loop.call_later(_PACE_TICK_S, self._on_pace)

    def _on_pace(self) -> None:
        """Those that waited longest are read first; each may take an equal share."""
        self._pacing = None
        now = self._time_ns()
        for _ in range(len(self._paced)):
            side = self._paced.popleft()
            pace = side.tunnel.pace
            assert pace is not None
            pace.waiting -= 1
            side.paced = False
            self._resume(side, now)
            if side.tunnel.final is None:
                self._watch(side)
        if self._paced and self._pacing is None:
            assert self._loop is not None
            self._pacing = self._loop.call_later(_PACE_TICK_S, self._on_pace)
