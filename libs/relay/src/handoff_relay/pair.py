"""The state of one tunnel in the Python relay: two sides, what each is owed, when it is over.

No I/O: `python` moves the bytes and keeps these fields; the questions asked of them are answered
here. A side is a socket with what goes *to* it queued and what comes *from* it followed.
"""

import ssl
from collections.abc import Callable
from socket import socket
from typing import Final

from handoff_relay.frames import FrameFollower, may_be_sent
from handoff_relay.interface import (
    BodyCounters,
    ClosedBy,
    End,
    Messages,
    OnEnd,
    Peer,
    RelayLimits,
)
from handoff_relay.pace import Pace

MS: Final = 1_000_000
"""Nanoseconds in a millisecond."""


class Side:
    """One socket of a tunnel."""

    __slots__ = (
        "broken",
        "dismissed",
        "ended",
        "eof",
        "error",
        "events",
        "failure",
        "fd",
        "fin_sent",
        "follower",
        "name",
        "other",
        "own",
        "paced",
        "queue",
        "received",
        "registered",
        "sealed",
        "sent",
        "sock",
        "tls",
        "told",
        "tunnel",
        "wants_read",
        "wants_write",
    )
    other: "Side"
    """Gone, as the tunnel's own sides are, once the tunnel is over."""

    def __init__(self, name: Peer, sock: socket, tunnel: "PairTunnel") -> None:
        self.name: Peer = name
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.tunnel = tunnel
        self.follower = FrameFollower()
        self.received = 0
        self.sent = 0
        self.queue: memoryview | None = None
        """Bytes for this side that the kernel has not taken yet. While there are any, the other
        side is not read: that is all the back-pressure there is."""
        self.own = 0
        """How many bytes at the end of `queue` are of a Close frame of ours."""
        self.eof = False
        """Nothing more comes from this side."""
        self.dismissed = False
        """By TLS: it is read no more, since the other's end could be passed on only as an end of
        both directions. It may still be sending."""
        self.broken = False
        """Nothing more can be sent to it."""
        self.fin_sent = False
        """It was told that nothing more comes."""
        self.sealed = False
        """What the other side still says is dropped: our Close frame was put behind what went
        before, or none can be."""
        self.told = False
        """Our Close frame was put into its queue."""
        self.paced = False
        """Waits for its pace before it is read on."""
        self.ended = False
        """The TLS layer met its end, maybe behind bytes that were still good."""
        self.error: OSError | None = None
        """What ended it, if it was not orderly."""
        self.failure: OSError | None = None
        """What the kernel says ended it, where TLS would hide that."""
        self.wants_write = False
        """TLS must send before it can receive."""
        self.wants_read = False
        """TLS must receive before it can send."""
        self.events = 0
        """What epoll watches for; errors and hang-ups always."""
        self.registered = False

    def done(self) -> bool:
        """Whether nothing more is read of it."""
        return self.eof or self.dismissed

    def readable(self) -> bool:
        """Whether reading it makes sense now."""
        if self.done() or self.paced:
            return False
        other = self.other
        return other.sealed or (other.queue is None and not other.broken)

    def owed_end(self) -> bool:
        """Whether it is time to tell it that nothing more comes: all that came was written, or it
        answered our Close frame, and need not wait for the other peer's answer."""
        if self.fin_sent or self.broken or self.queue is not None:
            return False
        return self.other.done() or (self.told and self.answered())

    def passed_on(self) -> bool:
        """Whether everything that came from it has gone where it could."""
        other = self.other
        return other.broken or (self.done() and other.queue is None)

    def answered(self) -> bool:
        """At an orderly end: whether there is nothing to wait for from it."""
        return (
            self.done() or self.broken or self.follower.closed or (self.sealed and not self.told)
        ) and (self.queue is None or self.broken)


class PairTunnel:
    """See `interface.Tunnel`. `order` carries `end` to the relay that owns the tunnel."""

    __slots__ = (
        "_order",
        "cause",
        "client",
        "close",
        "closed_by",
        "ending_ns",
        "final",
        "half_closed",
        "last_ns",
        "limits",
        "on_end",
        "origin",
        "pace",
        "slot",
        "started_ns",
        "yields",
    )
    client: Side
    origin: Side

    def __init__(
        self,
        client: socket,
        origin: socket,
        *,
        limits: RelayLimits,
        pace: Pace | None,
        on_end: OnEnd,
        order: "Callable[[PairTunnel, int, str, str], None]",
        now_ns: int,
    ) -> None:
        self.client = Side("client", client, self)
        self.origin = Side("origin", origin, self)
        self.client.other = self.origin
        self.origin.other = self.client
        self.limits = limits
        self.pace = pace
        self.on_end = on_end
        self._order = order
        self.started_ns = now_ns
        self.last_ns = now_ns
        """When a byte last moved."""
        self.slot = -1
        self.cause = ""
        self.closed_by: ClosedBy = "edge"
        self.yields = False
        """The cause is a mere FIN, and gives way to an end that the edge makes."""
        self.half_closed = False
        """A peer said that it ends."""
        self.close: tuple[int, str] | None = None
        """Code and reason of an orderly end."""
        self.ending_ns = 0
        """Until when that end waits; 0: no end was asked for."""
        self.final: End | None = None

    def counters(self) -> BodyCounters:
        if self.final is not None:
            return self.final.counters
        client, origin = self.client, self.origin
        return BodyCounters(client.received, client.sent, origin.sent, origin.received)

    def messages(self) -> Messages:
        if self.final is not None:
            return self.final.messages
        return Messages(self.client.follower.messages, self.origin.follower.messages)

    def end(self, code: int, reason_text: str, cause: str) -> None:
        if not may_be_sent(code):
            raise ValueError(f"code is {code}; allowed: 1000-1003, 1007-1014, 3000-4999")
        self._order(self, code, reason_text, cause)

    def note(self, cause: str, closed_by: ClosedBy, *, yields: bool = False) -> None:
        """Keep the first cause; one of the edge's own takes the place of a mere FIN."""
        if not self.cause or (self.yields and closed_by == "edge"):
            self.cause = cause
            self.closed_by = closed_by
            self.yields = yields

    def due_ns(self) -> int:
        """The next instant at which something is to be done if no byte moves until then."""
        if self.ending_ns:
            return self.ending_ns
        limits = self.limits
        quiet = limits.half_closed_ms if self.half_closed else limits.idle_ms
        due = self.last_ns + quiet * MS
        if limits.max_duration_ms is not None:
            due = min(due, self.started_ns + limits.max_duration_ms * MS)
        return due

    def over(self) -> bool:
        """Whether both sides have come to their end."""
        client, origin = self.client, self.origin
        if self.ending_ns:
            return client.answered() and origin.answered()
        return client.passed_on() and origin.passed_on()

    def conclude(self) -> End:
        """Fix the end, and let the sides go."""
        code: int | None
        client, origin = self.client, self.origin
        if self.closed_by == "edge":
            told = self.close is not None and (client.told or origin.told)
            code = self.close[0] if told and self.close else None
        else:
            code = (client if self.closed_by == "client" else origin).follower.close_code
        final = End(self.cause, self.closed_by, code, self.counters(), self.messages())
        self.final = final
        # Without these there is no cycle, and nothing waits for the garbage collector.
        del client.other, origin.other, self.client, self.origin
        return final
