"""Bytes of the Python relay: read from one side, follow, send to the other, queue, seal.

Everything here only moves bytes and marks what it met in the sides and their tunnel. Whether a
tunnel is over is for `python` to see, afterwards.

Bytes are received into one buffer that all tunnels share and sent on at once; only what the kernel
did not take is copied, and then the sending peer is not read until it has gone. An idle tunnel so
holds no buffer, and a direction never holds more than one.
"""

import os
import ssl
from collections.abc import Callable
from socket import socket
from typing import Final

from handoff_relay import sockets
from handoff_relay.frames import close_frame
from handoff_relay.interface import IN_FLIGHT_MAX
from handoff_relay.pacing import Pacing
from handoff_relay.pair import PairTunnel, Side
from handoff_relay.watch import IN, OUT, Watch

_GIVE_BACK_MIN: Final = 16 * 1024
"""What was sent is given back in portions of at least this, or it costs more than it saves."""


class Flow:
    """half_closed: called when a peer of a tunnel says that it ends, or is gone."""

    __slots__ = ("_buffer", "_half_closed", "_pacing", "_view", "_watch")

    def __init__(
        self, watch: Watch, pacing: Pacing, half_closed: Callable[[PairTunnel], None]
    ) -> None:
        self._watch = watch
        self._pacing = pacing
        self._half_closed = half_closed
        self._buffer = bytearray(IN_FLIGHT_MAX)
        self._view = memoryview(self._buffer)

    # --- in ----------------------------------------------------------------------------------

    def early(self, side: Side, data: bytes, now_ns: int) -> None:
        """Bytes of this side that were read before there was a tunnel."""
        self._buffer[: len(data)] = data
        self._arrived(side, len(data), now_ns)

    def read(self, side: Side, now_ns: int) -> None:
        """Receive once and send on."""
        pace = side.tunnel.pace
        size = IN_FLIGHT_MAX
        if pace is not None and not side.other.sealed:
            size = min(size, pace.share(now_ns))
            if not size:
                self._pacing.wait(side)
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
            self._arrived(side, size, now_ns)
        elif not size:
            self.finished(side)

    def _receive_tls(self, side: Side, size: int) -> int:
        assert isinstance(side.sock, ssl.SSLSocket)
        if side.ended:
            return 0
        count, wants, side.error = sockets.receive_tls(side.sock, self._view, size, side.failure)
        side.wants_write = wants == OUT
        side.ended = wants == sockets.ENDED
        if count > 0 and wants in (0, sockets.ENDED):
            self._watch.read_again(side)
        return count

    def _arrived(self, side: Side, size: int, now_ns: int) -> None:
        """`size` bytes from this side are in the buffer."""
        tunnel, other, follower = side.tunnel, side.other, side.follower
        side.received += size
        tunnel.last_ns = now_ns
        if other.sealed:
            follower.feed(self._buffer, 0, size)
            return
        if tunnel.pace is not None:
            tunnel.pace.spend(size)
        if tunnel.ending_ns:
            self._arrived_at_the_end(side, size)
            return
        follower.feed(self._buffer, 0, size)
        if follower.closed:
            tunnel.note(f"{side.name}_closed", side.name)
            self._half_closed(tunnel)
        self._send(other, size)

    def _arrived_at_the_end(self, side: Side, size: int) -> None:
        """An orderly end was asked for, and no boundary was found yet."""
        other, follower = side.other, side.follower
        boundary = follower.feed_to_boundary(self._buffer, 0, size)
        if follower.at_boundary and not other.follower.closed:
            self._send(other, boundary)
            self.seal(other)
            follower.feed(self._buffer, boundary, size)
        else:
            follower.feed(self._buffer, boundary, size)
            self._send(other, size)
            self.seal(other)

    # --- out ---------------------------------------------------------------------------------

    def _send(self, side: Side, size: int) -> None:
        """Send the first `size` bytes of the buffer; what the kernel does not take is queued."""
        if side.broken or not size:
            return
        data = self._view[:size]
        try:
            count = self._send_tls(side, data) if side.tls else side.sock.send(data)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            self.lost(side, error)
            return
        side.sent += count
        if count < size:
            # Whoever reads the other side attends to it afterwards, and so pauses it.
            side.queue = memoryview(bytes(data[count:]))
            self._watch.attend(side)

    def flush(self, side: Side) -> None:
        """Send what is queued for this side."""
        queue = side.queue
        assert queue is not None
        try:
            count = self._send_tls(side, queue) if side.tls else side.sock.send(queue)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lost(side, error)
            return
        left = len(queue) - count
        side.sent += min(count, len(queue) - side.own)
        side.own = min(side.own, left)
        side.queue = _rest(queue, count) if left else None

    def _send_tls(self, side: Side, data: memoryview) -> int:
        assert isinstance(side.sock, ssl.SSLSocket)
        count, wants = sockets.send_tls(side.sock, data)
        side.wants_read = wants == IN
        return count

    def seal(self, side: Side) -> None:
        """At an orderly end: put our Close frame behind what goes to this side, if now is the
        moment, or see that none can be."""
        tunnel, source = side.tunnel, side.other.follower
        if side.sealed or source.closed or side.follower.closed:
            # Done before; or the peers are closing by themselves, and that goes on.
            return
        if side.broken or side.fin_sent or not source.valid:
            side.sealed = True
        elif source.at_boundary:
            assert tunnel.close is not None
            code, reason = tunnel.close
            frame = close_frame(code, reason, os.urandom(4) if side.name == "origin" else None)
            side.sealed = side.told = True
            side.own = len(frame)
            side.queue = memoryview(frame if side.queue is None else bytes(side.queue) + frame)
            if not side.wants_read:
                self.flush(side)
        elif side.other.done():
            side.sealed = True

    # --- ends --------------------------------------------------------------------------------

    def finished(self, side: Side) -> None:
        """Nothing more comes from this side, in order or with the error that was met."""
        side.eof = True
        side.wants_write = False
        if side.error is not None:
            self.lost(side, side.error)
            return
        if side.tls:
            # It takes nothing more either: TLS has no half-close.
            _give_up(side)
        side.tunnel.note(f"{side.name}_closed", side.name, yields=not side.tls)
        self._half_closed(side.tunnel)

    def lost(self, side: Side, error: OSError) -> None:
        """The connection to this side is gone; what came from it before may still be unread."""
        _give_up(side)
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            # A broken TLS layer reads no more either.
            side.eof = True
        if sockets.is_dead(side.failure or error):
            side.tunnel.note("dead_peer", side.name)
        else:
            side.tunnel.note(f"{side.name}_reset", side.name)
        self._half_closed(side.tunnel)

    def pass_end(self, side: Side) -> None:
        """Tell this side that nothing more comes."""
        if side.tls:
            # Being told, it could answer nothing; after a Close frame it knows and will answer,
            # once: then it waits for this end.
            answers = side.follower.valid and not side.follower.closed
            if not (side.told or (side.other.follower.closed and answers)):
                side.dismissed = True
            return
        try:
            sockets.say_end(side.sock)
            side.fin_sent = True
        except OSError as error:
            self.lost(side, error)

    def drop(self, sock: socket) -> bool:
        """Receive from a socket whose tunnel is over; whether there may be more."""
        try:
            return bool(sock.recv_into(self._view))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False


def _rest(queue: memoryview, count: int) -> memoryview:
    """What is left of it behind `count` bytes. A view keeps all that it is a view of: once that is
    half sent, and it is worth it, the rest is copied, and what was sent given back."""
    rest = queue[count:]
    assert isinstance(queue.obj, bytes)
    sent = len(queue.obj) - len(rest)
    return memoryview(bytes(rest)) if sent >= max(_GIVE_BACK_MIN, len(rest)) else rest


def _give_up(side: Side) -> None:
    side.broken = True
    side.queue = None
    side.own = 0
    side.wants_read = False
