"""The client port: accepts, reads the head, holds what comes behind it, and answers refusals.

Owns a client's socket until the relay takes it over or it is closed. Works on the raw non-blocking
socket: no transport is between, so no byte is buffered out of sight, every counter is exact, and a
socket can be handed over at any moment (docs/adr/0004-raw-relay.md).
"""

import asyncio
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable, Collection, Coroutine, Hashable
from contextlib import suppress
from typing import Any, Final

from handoff_common.telemetry import get_logger
from handoff_edge import wire
from handoff_edge.addresses import Network, network_of, within
from handoff_edge.errors import Refusal, Refused, answer_bytes
from handoff_edge.head import HELD_MAX, Head, HeadReader
from handoff_edge.limits import Admission, Early, Handshakes
from handoff_edge.metrics import Metrics
from handoff_edge.proxy_header import SIGHT, ProxyReader
from handoff_edge.reporter import Reporter
from handoff_edge.turns import Turns
from handoff_relay import ServerTls, Stream, TlsStream

_READ: Final = 64 * 1024
_ACCEPTS_PER_TURN: Final = 128
_BEGUN_PER_TURN: Final = 4
_LAST_TURNS: Final = 64
_TASKS_MAX: Final = 16_384
_ACCEPT_PAUSE: Final = 0.25
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_SEND_SECONDS: Final = 5.0
_POLITE_SECONDS: Final = 1.0
_POLITE_BYTES: Final = 1024 * 1024

OnHead = Callable[["Client", Head], Coroutine[Any, Any, None]]


class Client:
    """One client: its socket and what it has sent.

    held: bytes behind the head that nobody has taken yet. ended: its FIN was read. gone: it reset
    the connection. on_gone: called once when that is noticed.
    since: when it was accepted, in seconds of the monotonic clock.
    counted: the network that it was admitted for; None while a load balancer has not named it.
    sock: what is spoken with it by: the accepted socket, or TLS over it. tls: whether that is so.
    server_name: the name that it asked for by TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        *,
        proxied: bool = False,
        early: Early | None = None,
    ) -> None:
        self._accepted = sock
        self.sock: Stream = sock
        self.server_name: str | None = None
        self._shaking: TlsStream | None = None
        self.address = address
        self.network = network_of(address)
        self.counted = None if proxied else self.network
        self.since = time.monotonic()
        self._proxy = ProxyReader() if proxied else None
        self.held = bytearray()
        self._early = early or Early(HELD_MAX)
        self.ended = False
        self.gone = False
        self.on_gone: Callable[[], object] | None = None
        self._reader: HeadReader | None = HeadReader()
        self._watched = -1
        """The descriptor that the loop watches: where a socket is closed under it, its number must
        still be taken from the loop, since the next socket gets it. -1: none."""
        self._taken = False

    def watch(self, callback: Callable[[], None]) -> None:
        if self._watched < 0:
            self._watched = self.sock.fileno()
            asyncio.get_running_loop().add_reader(self._watched, callback)

    def unwatch(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = -1

    @property
    def unidentified(self) -> bool:
        """A load balancer has still to say who it is."""
        return self._proxy is not None

    def identify(self) -> None:
        """Take what has come of the load balancer's header, and nothing of what is behind it, which
        may be TLS. Raises Refused."""
        assert self._proxy is not None
        try:
            seen = self._accepted.recv(SIGHT, socket.MSG_PEEK)
            taken = self._proxy.take(seen)
            self._accepted.recv(taken)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose()
            return
        if not seen:
            self._end()
        if self._proxy.done:
            self.address = self._proxy.address or self.address
            self.network = network_of(self.address)
            self._proxy = None

    @property
    def tls(self) -> bool:
        return self.sock is not self._accepted

    @property
    def shaking(self) -> bool:
        """Its TLS handshake goes on."""
        return self._shaking is not None

    def secure(self, tls: ServerTls) -> None:
        """Speak TLS with it from here on. Raises OSError where it has gone."""
        self._shaking = self.sock = tls.wrap(self._accepted)

    def shake_hands(self) -> None:
        """A step of the TLS handshake. Raises OSError where it fails."""
        assert self._shaking is not None
        try:
            self._shaking.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            # A client that takes not even so much is looked at again when it sends something.
            return
        self.server_name = self._shaking.server_name
        self._shaking = None

    def read(self) -> Head | None:
        """Take what has come; the head once it is whole, once. Raises Refused."""
        size = _READ if self._reader else HELD_MAX - len(self.held)
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            self._lose()
            return None
        if not data:
            self._end()
            return None
        if self._reader is None:
            self._hold(data)
            return None
        found = self._reader.feed(data)
        if found is None:
            return None
        self._reader = None
        head, rest = found
        self._hold(rest)
        return head

    def take(self) -> Stream:
        """The socket, which no event loop has any more; it is the caller's."""
        self.unwatch()
        self._taken = True
        self.drop_held()
        return self.sock

    def drop_held(self) -> None:
        """What it sent early is with somebody else, or is wanted by nobody."""
        self._early.held -= len(self.held)
        self.held = bytearray()

    async def answer(self, data: bytes) -> None:
        """Send the last that this client gets, and close so that it arrives."""
        self.unwatch()
        self.drop_held()
        if self._taken:
            return
        self._taken = True
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await wire.send_all(self.sock, data)
        except (OSError, TimeoutError):
            wire.close(self.sock)
            return
        except BaseException:
            wire.close(self.sock)
            raise
        await wire.close_politely(self.sock, seconds=_POLITE_SECONDS, most=_POLITE_BYTES)

    def close(self) -> None:
        self.unwatch()
        self.drop_held()
        if not self._taken:
            self._taken = True
            wire.close(self.sock)

    def _hold(self, data: bytes) -> None:
        self.held += data
        self._early.held += len(data)
        if len(self.held) >= HELD_MAX or self._early.full:
            self.unwatch()

    def _end(self) -> None:
        if self.tls and not self.shaking:
            # TLS has no half-close: who ends it reads no answer any more.
            self._lose()
            return
        # Watching on would turn the loop for nothing: the end of a stream is always readable.
        self.ended = True
        self.unwatch()

    def _lose(self) -> None:
        self.gone = True
        self.unwatch()
        if self.on_gone is not None:
            self.on_gone()


class ClientPort:
    """Accepts clients on a listening socket and calls `on_head` for each whole head, in a task of
    its own that is bounded by what the handshake bounds.

    Heads that are whole take turns by whose they are, a few in each turn of the event loop: what is
    under way goes on first, and one service's crowd does not stand before another's clients.

    handshakes: counts those under way or waiting for their turn; where there is no place, clients
    get 503 `busy`. early: counts what clients send before they are answered.
    owner_of: whose a host is; None: nobody's.
    proxies: networks whose connections begin with a header of the PROXY protocol, and no others.
    tls: gives what clients are spoken with by; None: a port without TLS.
    """

    def __init__(
        self,
        on_head: OnHead,
        admission: Admission,
        metrics: Metrics,
        reporter: Reporter,
        *,
        head_timeout: float,
        handshakes: Handshakes,
        early: Early,
        owner_of: Callable[[str], Hashable] = lambda _: None,
        proxies: Collection[Network] = (),
        tls: Callable[[], ServerTls] | None = None,
    ) -> None:
        self._on_head = on_head
        self._admission = admission
        self._metrics = metrics
        self._reporter = reporter
        self._head_timeout = head_timeout
        self._handshakes = handshakes
        self._early = early
        self._owner_of = owner_of
        self._whole = Turns[tuple[Client, Head, Hashable]]()
        self._proxies = proxies
        self._tls = tls
        self._logger = get_logger("edge")
        self._listener: socket.socket | None = None
        self._waiting: dict[Client, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._spare: int | None = None
        self._number = 0

    @property
    def port(self) -> int:
        """The port listened on, or that was left to others; 0 where none is."""
        return self._number

    def open(self, listener: socket.socket) -> None:
        self._listener = listener
        self._number = int(listener.getsockname()[1])
        with suppress(OSError):
            # What it accepts has it from there.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._keep_spare()
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def leave(self) -> None:
        """Stop listening. Who has connected is served; who connects from now on is another's, where
        others listen on the same port."""
        if self._listener is None:
            return
        for _ in range(_LAST_TURNS):
            if not self._accept():
                break
        # Behind the last turn, which may have put itself off.
        if self._resume is not None:
            self._resume.cancel()
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        # Its number stays: handshakes that are under way must not be led to it.
        self._listener = None

    @property
    def at_work(self) -> bool:
        """Somebody waits here for an answer."""
        return bool(self._waiting or self._whole or self._tasks)

    def close(self) -> None:
        """Stop listening, and drop clients whose head is not whole."""
        if self._resume is not None:
            self._resume.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self._number = 0
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        while self._whole:
            self._begin_next()
        for client in list(self._waiting):
            self._forget(client)
            client.close()

    async def finished(self, *, timeout: float) -> None:
        """Wait for handshakes under way; after `timeout` seconds they are given up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def count(
        self, code: str, client: Client, *, host: str | None = None, **fields: object
    ) -> None:
        """Count and log one handshake that led to no connection. host: what it asked for, where its
        head was read."""
        self._reporter.refused(code, host=host)
        self._logger.info("refused", code=code, client_network=client.network, **fields)

    def _accept(self) -> bool:
        """Take some of those who wait. True where there may be more."""
        assert self._listener is not None
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionError:
                continue
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS and self._turn_away():
                    continue
                self._pause(error)
                return False
            self._admit(sock, str(address[0]))
        return True

    def _turn_away(self) -> bool:
        """Out of descriptors: give the spare one to the client that waits longest, so that it is
        told and can go to another edge. False where somebody else took that descriptor."""
        assert self._listener is not None
        self._keep_spare()
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        try:
            sock, address = self._listener.accept()
        except OSError:
            self._keep_spare()
            return False
        refusal = Refusal("busy", "this edge is out of descriptors", retry_after=1)
        client = Client(sock, str(address[0]))
        self.count(refusal.code, client, detail=refusal.text)
        sock.setblocking(False)
        with suppress(OSError):
            # What is unread at a close would reset the connection, and may take the answer with it.
            sock.recv(_READ)
        with suppress(OSError):
            # A client that expects TLS would not understand it.
            if self._tls is None:
                sock.send(answer_bytes(refusal))
            sock.shutdown(socket.SHUT_WR)
        client.close()
        self._keep_spare()
        return True

    def _keep_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _pause(self, error: OSError) -> None:
        # Out of memory, or of descriptors and not even the spare one is left: the waiting client
        # stays in the queue, and asking for it again at once would only turn the loop.
        known = errno.errorcode.get(error.errno or 0, str(error))
        self._logger.error("accept_paused", error=known, seconds=_ACCEPT_PAUSE)
        loop = asyncio.get_running_loop()
        assert self._listener is not None
        descriptor = self._listener.fileno()
        loop.remove_reader(descriptor)
        if self._resume is not None:
            self._resume.cancel()
        self._resume = loop.call_later(
            _ACCEPT_PAUSE, lambda: loop.add_reader(descriptor, self._accept)
        )

    def _admit(self, sock: socket.socket, address: str) -> None:
        proxied = within(address, self._proxies)
        client = Client(sock, address, proxied=proxied, early=self._early)
        sock.setblocking(False)
        if not self._admission.admit(client.counted):
            self.count("too_many_heads", client)
            client.close()
            return
        timer = asyncio.get_running_loop().call_later(
            self._head_timeout, lambda: self._head_late(client)
        )
        self._waiting[client] = timer
        client.watch(lambda: self._readable(client))

    def _readable(self, client: Client) -> None:
        head: Head | None = None
        try:
            if (not client.unidentified or self._identify(client)) and self._secured(client):
                head = client.read()
        except Refused as error:
            self._forget(client)
            self.refuse(client, error.refusal)
            return
        except Exception as error:
            self._logger.error("unexpected_error", exc_info=error)
            self._forget(client)
            self.refuse(client, Refusal("internal", "internal error"))
            return
        if head is not None:
            self._metrics.stages["head"].observe(time.monotonic() - client.since)
            self._forget(client)
            self._begin(client, head)
        elif client in self._waiting and (client.ended or client.gone):
            self._forget(client)
            self.count("head_incomplete", client)
            client.close()

    def _identify(self, client: Client) -> bool:
        """Whether it is known now whose connection this is, and it may go on. Raises Refused."""
        client.identify()
        if client.unidentified or client.ended or client.gone:
            return False
        if not self._admission.identify(client.network):
            self._forget(client)
            self.count("too_many_heads", client)
            client.close()
            return False
        client.counted = client.network
        return True

    def _secured(self, client: Client) -> bool:
        """Whether its TLS handshake is done, where there is to be one."""
        if self._tls is None:
            return True
        try:
            if not client.tls:
                client.secure(self._tls())
            if not client.shaking:
                return True
            client.shake_hands()
        except OSError as error:
            # Nothing can be said to it that it would understand; TLS has sent its alert.
            self._forget(client)
            self.count("tls_failed", client, detail=str(error))
            client.close()
            return False
        return not client.shaking

    def _begin(self, client: Client, head: Head) -> None:
        whose = self._owner_of(head.host)
        if not self._handshakes.enter(whose):
            text = f"{self._handshakes.under_way} handshakes are under way"
            self.refuse(client, Refusal("busy", text, retry_after=1), host=head.host)
            return
        if not self._whole:
            asyncio.get_running_loop().call_soon(self._begin_some)
        self._whole.put(whose, (client, head, whose))

    def _begin_some(self) -> None:
        for _ in range(min(_BEGUN_PER_TURN, len(self._whole))):
            self._begin_next()
        if self._whole:
            asyncio.get_running_loop().call_soon(self._begin_some)

    def _begin_next(self) -> None:
        client, head, whose = self._whole.take()
        task = self._own(self._on_head(client, head))
        task.add_done_callback(lambda _: self._handshakes.leave(whose))

    def _head_late(self, client: Client) -> None:
        self._forget(client)
        if self._tls is not None and (client.shaking or not client.tls):
            self.count("tls_timeout", client)
            client.close()
            return
        text = f"the request head was not whole after {self._head_timeout} s"
        self.refuse(client, Refusal("head_timeout", text))

    def refuse(self, client: Client, refusal: Refusal, *, host: str | None = None) -> None:
        """Answer with a refusal, in the background."""
        self.count(refusal.code, client, host=host, detail=refusal.text)
        if len(self._tasks) >= _TASKS_MAX:
            # Answers take a task each too: beyond the bound, one try and no waiting.
            with suppress(OSError):
                client.sock.send(answer_bytes(refusal))
            client.close()
            return
        client.unwatch()
        self._own(client.answer(answer_bytes(refusal)))

    def _own(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _forget(self, client: Client) -> None:
        timer = self._waiting.pop(client, None)
        if timer is not None:
            timer.cancel()
            self._admission.leave(client.counted)
