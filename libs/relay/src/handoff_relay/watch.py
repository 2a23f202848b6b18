"""One epoll for all sockets of a relay, nested in the event loop's.

A descriptor that is registered for nothing still tells of errors and hang-ups: that is how a reset
is seen where reading is paused. What is watched is kept alive here.
"""

import select
from asyncio import AbstractEventLoop
from collections.abc import Callable
from socket import socket
from typing import Final

from handoff_relay.pair import Side

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERROR: Final = select.EPOLLERR
GONE: Final = select.EPOLLERR | select.EPOLLHUP
_BATCH: Final = 128
"""Ready sockets handled before the event loop gets its turn."""


class Lingering:
    """A socket whose tunnel is over but whose peer may still be sending. Closed at once, it would
    answer with RST, and that can cost the peer what it has not read yet: so it is read, and
    dropped, until the peer ends too."""

    __slots__ = ("deadline_ns", "fd", "slot", "sock")

    def __init__(self, sock: socket, fd: int, deadline_ns: int) -> None:
        self.sock = sock
        self.fd = fd
        self.deadline_ns = deadline_ns
        self.slot = -1


class Watch:
    """on_ready: called by the event loop when `poll` has something.
    resume: called, from the event loop, for a side that is to be read unasked."""

    __slots__ = ("_again", "_epoll", "_loop", "_resume", "by_fd")

    def __init__(
        self,
        loop: AbstractEventLoop,
        on_ready: Callable[[], None],
        resume: Callable[[Side], None],
    ) -> None:
        self.by_fd: dict[int, Side | Lingering] = {}
        self._loop = loop
        self._resume = resume
        self._again: list[Side] = []
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), on_ready)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def poll(self) -> list[tuple[int, int]]:
        return self._epoll.poll(0, _BATCH)

    def add(self, one: socket, two: socket) -> None:
        """Raises OSError where one of them is watched already; then neither is added."""
        self._epoll.register(one.fileno(), 0)
        try:
            self._epoll.register(two.fileno(), 0)
        except OSError:
            self._epoll.unregister(one.fileno())
            raise

    def know(self, side: Side) -> None:
        """This side's socket was added."""
        side.registered = True
        self.by_fd[side.fd] = side

    def attend(self, side: Side) -> None:
        """Watch for what this side waits for now."""
        events = 0
        if side.readable():
            events = OUT if side.wants_write else IN
        if side.queue is not None:
            events |= IN if side.wants_read else OUT
        if events == side.events and (side.registered or not events):
            return
        if side.registered:
            self._epoll.modify(side.fd, events)
        elif events:
            self._epoll.register(side.fd, events)
            side.registered = True
        if side.tls and events & ~side.events & IN:
            self.read_again(side)
        side.events = events

    def ignore(self, side: Side) -> None:
        """Not even its errors, until it is attended to again."""
        if side.registered:
            self._epoll.unregister(side.fd)
            side.registered = False
            side.events = 0

    def forget(self, side: Side) -> None:
        self.ignore(side)
        del self.by_fd[side.fd]

    def linger(self, side: Side, deadline_ns: int) -> Lingering:
        """From now on its socket is one that lingers."""
        self._epoll.modify(side.fd, IN)
        lingering = Lingering(side.sock, side.fd, deadline_ns)
        self.by_fd[side.fd] = lingering
        return lingering

    def let_go(self, lingering: Lingering) -> None:
        self._epoll.unregister(lingering.fd)
        del self.by_fd[lingering.fd]
        lingering.sock.close()

    def read_again(self, side: Side) -> None:
        """The TLS layer may hold bytes of this side that epoll cannot see."""
        if not self._again:
            self._loop.call_soon(self._on_again)
        self._again.append(side)

    def _on_again(self) -> None:
        sides, self._again = self._again, []
        for side in sides:
            self._resume(side)
