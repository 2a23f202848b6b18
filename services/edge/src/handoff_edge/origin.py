"""Dials a backend: looks its name up, judges the addresses, connects, verifies its certificate.

Owns everything up to a connected socket that belongs to the right server; sends nothing. Each
failure has its own refusal code.
"""

import asyncio
import ipaddress
import socket
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import aiohappyeyeballs

from handoff_common.clock import Clock
from handoff_common.events import BackendSnapshot
from handoff_edge import wire
from handoff_edge.addresses import Network, judge
from handoff_edge.errors import Refused, out_of_descriptors, refused
from handoff_relay import CertificateFault, CertificateRefused, ClientTls, Stream, TlsStream

AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]
LookUp = Callable[[str, int], Awaitable[Sequence[AddrInfo]]]

_FRESH_MS: Final = 30_000
_STALE_MS: Final = 600_000
"""A name that works must not wait for look-ups that do not end: what was found may be old, up to
this age, while it is looked up again."""
_FAILED_FRESH_MS: Final = 1_000
_NAMES_MOST: Final = 10_000
_LOOK_UPS_PER_SERVICE: Final = 4
_LOOK_UPS_PER_CUSTOMER: Final = 8
_THREADS: Final = 32
_EYEBALLS_DELAY: Final = 0.25

_CERTIFICATE_CODES: Final[dict[CertificateFault, tuple[str, str]]] = {
    "not_valid_yet": ("origin_tls_expired", "is not valid yet"),
    "expired": ("origin_tls_expired", "has expired"),
    "self_signed": ("origin_tls_self_signed", "is self-signed"),
    "name": ("origin_tls_name", "is for another name"),
    "untrusted": ("origin_tls_untrusted", "is not signed by a public CA"),
}
"""What a customer can act on."""


class Asker(Protocol):
    """For whom a name is looked up, as `decision.Handoff` says."""

    @property
    def customer_id(self) -> str: ...

    @property
    def service_id(self) -> str: ...


class _Known(NamedTuple):
    """Looked up again from fresh_ms on, of no use from until_ms on; both epoch ms."""

    fresh_ms: int
    until_ms: int
    found: Sequence[AddrInfo] | Refused


class Resolver:
    """Look-ups with a memory, bounded per service and per customer: one customer's slow name server
    must not keep the others waiting. A name that is being looked up is looked up once, whoever
    asks. What has been found serves for a while yet when it is no longer fresh, and is looked up
    again behind the caller's back."""

    def __init__(self, clock: Clock, look_up: LookUp | None = None) -> None:
        self._clock = clock
        self._look_up = look_up or self._getaddrinfo
        self._known: OrderedDict[tuple[str, int], _Known] = OrderedDict()
        self._running: dict[tuple[str, int], asyncio.Task[Sequence[AddrInfo]]] = {}
        self._of_customer: Counter[str] = Counter()
        self._of_service: Counter[str] = Counter()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    async def resolve(self, asker: Asker, host: str, port: int) -> Sequence[AddrInfo]:
        """Raises Refused: `origin_lookup_failed`, `origin_lookup_busy`."""
        found = self.known(asker, host, port)
        if found is not None:
            return found
        key = (host, port)
        task = self._running.get(key)
        if task is None:
            if busy := self._busy(asker):
                raise refused("origin_lookup_busy", busy, retry_after=1)
            task = self._begin(asker, key)
        return await asyncio.shield(task)

    def known(self, asker: Asker, host: str, port: int) -> Sequence[AddrInfo] | None:
        """What need not be waited for; None where it must be. Begins to look up again what is not
        fresh. Raises Refused: `origin_lookup_failed`."""
        if literal := _literal(host, port):
            return (literal,)
        key = (host, port)
        known = self._known.get(key)
        now_ms = self._clock.now_ms()
        if known is None or known.until_ms <= now_ms:
            return None
        self._known.move_to_end(key)
        if known.fresh_ms <= now_ms and key not in self._running and not self._busy(asker):
            self._begin(asker, key)
        if isinstance(known.found, Refused):
            raise Refused(known.found.refusal)
        return known.found

    def close(self) -> None:
        self._closed = True
        for task in self._running.values():
            task.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _busy(self, asker: Asker) -> str:
        """Why nothing more may be looked up for the asker now; empty where it may."""
        if self._closed:
            return "this edge looks nothing up any more"
        if self._of_service[asker.service_id] >= _LOOK_UPS_PER_SERVICE:
            return f"{_LOOK_UPS_PER_SERVICE} look-ups of this service are under way"
        if self._of_customer[asker.customer_id] >= _LOOK_UPS_PER_CUSTOMER:
            return f"{_LOOK_UPS_PER_CUSTOMER} look-ups of this customer are under way"
        return ""

    def _begin(self, asker: Asker, key: tuple[str, int]) -> "asyncio.Task[Sequence[AddrInfo]]":
        counted = (
            (self._of_customer, asker.customer_id),
            (self._of_service, asker.service_id),
        )
        for counts, who in counted:
            counts[who] += 1
        task = asyncio.create_task(self._fetch(key))

        def done(task: "asyncio.Task[Sequence[AddrInfo]]") -> None:
            del self._running[key]
            for counts, who in counted:
                counts[who] -= 1
                if not counts[who]:
                    del counts[who]
            if not task.cancelled():
                task.exception()

        self._running[key] = task
        task.add_done_callback(done)
        return task

    async def _fetch(self, key: tuple[str, int]) -> Sequence[AddrInfo]:
        try:
            found = await self._look_up(*key)
        except (OSError, UnicodeError) as error:
            if busy := out_of_descriptors(error):
                # It says nothing of the name, and may be over with the next connection's end.
                raise busy from None
            text = f"the origin's name {key[0]!r} cannot be looked up: {error}"
            failed = refused("origin_lookup_failed", text)
            self._keep_failed(key, failed)
            raise failed from None
        now_ms = self._clock.now_ms()
        self._keep(key, _Known(now_ms + _FRESH_MS, now_ms + _STALE_MS, found))
        return found

    def _keep_failed(self, key: tuple[str, int], failed: Refused) -> None:
        again_ms = self._clock.now_ms() + _FAILED_FRESH_MS
        known = self._known.get(key)
        if (
            known is not None
            and known.until_ms >= again_ms
            and not isinstance(known.found, Refused)
        ):
            # What was found before stays good until its own end.
            self._keep(key, known._replace(fresh_ms=again_ms))
        else:
            self._keep(key, _Known(again_ms, again_ms, failed))

    def _keep(self, key: tuple[str, int], known: _Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _NAMES_MOST:
            self._known.popitem(last=False)

    async def _getaddrinfo(self, host: str, port: int) -> Sequence[AddrInfo]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="look-up")
        return await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
        )


class Dialer:
    """Connects to backends.

    connect_timeout: seconds for look-up and connect together, and again for TLS.
    """

    def __init__(
        self,
        resolver: Resolver,
        tls: ClientTls,
        *,
        allow_private: bool,
        own_ports: Callable[[], Collection[int]] = tuple,
        own_networks: Collection[Network] = (),
        connect_timeout: float = 5.0,
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._allow_private = allow_private
        self._own_ports = own_ports
        self._own_networks = own_networks
        self._timeout = connect_timeout

    async def dial(
        self,
        asker: Asker,
        backend: BackendSnapshot,
        passed: Callable[[str], None] = lambda _: None,
    ) -> Stream:
        """A connected non-blocking socket; with `use_ssl` a TLS stream behind its handshake.

        passed: told `connect` and, with `use_ssl`, `origin_tls`. Raises Refused.
        """
        name = f"{backend.address}:{backend.port}"
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            found = self._resolver.known(asker, backend.address, backend.port)
            if found is None:
                async with asyncio.timeout_at(deadline):
                    found = await self._resolver.resolve(asker, backend.address, backend.port)
            sock = await self._connect(name, self._allowed(name, found), deadline)
        except TimeoutError:
            text = f"the origin {name} could not be reached within {self._timeout} s"
            raise refused("origin_timeout", text) from None
        passed("connect")
        if not backend.use_ssl:
            return sock
        secured = await self._secure(sock, backend.address, name)
        passed("origin_tls")
        return secured

    def _allowed(self, name: str, found: Sequence[AddrInfo]) -> list[AddrInfo]:
        allowed: list[AddrInfo] = []
        why = "it has no address"
        for info in found:
            address, port = info[4][:2]
            kind = judge(
                address,
                port,
                allow_private=self._allow_private,
                own_ports=self._own_ports(),
                own_networks=self._own_networks,
            )
            if kind is None:
                allowed.append(info)
            else:
                why = f"{address} is {kind}"
        if not allowed:
            raise refused("origin_address_refused", f"the origin {name} is not dialled: {why}")
        return allowed

    async def _connect(self, name: str, infos: list[AddrInfo], deadline: float) -> socket.socket:
        sock: socket.socket | None = None
        try:
            if len(infos) == 1:
                sock = await _connect_one(infos[0], deadline)
            else:
                async with asyncio.timeout_at(deadline):
                    sock = await aiohappyeyeballs.start_connection(
                        infos, happy_eyeballs_delay=_EYEBALLS_DELAY
                    )
            # All addresses of a backend have its port, which is hardly ever one of this edge's.
            own = infos[0][4][1] in self._own_ports() and same_host(sock)
        except TimeoutError:
            # It is an OSError too, and has a code of its own.
            raise
        except (OSError, RuntimeError) as error:
            if sock is not None:
                wire.close(sock)
            if busy := out_of_descriptors(error):
                raise busy from None
            text = f"the origin {name} cannot be reached: {error}"
            raise refused("origin_unreachable", text) from None
        if own:
            wire.close(sock)
            text = f"the origin {name} is not dialled: it is this edge's own"
            raise refused("origin_address_refused", text)
        return sock

    async def _secure(self, sock: socket.socket, host: str, name: str) -> Stream:
        tls: TlsStream | None = None
        try:
            # A plain socket sends its head at once and has nothing to wait for until the relay has
            # it; TLS sends several small parts.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._tls.wrap(sock, host)
            deadline = asyncio.get_running_loop().time() + self._timeout
            await wire.shake_hands(tls, deadline=deadline)
        except TimeoutError:
            wire.close(tls or sock)
            text = f"the TLS handshake with {name} took longer than {self._timeout} s"
            raise refused("origin_tls_timeout", text) from None
        except CertificateRefused as error:
            wire.close(tls or sock)
            code, what = _CERTIFICATE_CODES[error.fault]
            raise refused(code, f"the certificate of {name} {what}: {error.text}") from None
        except (OSError, ValueError) as error:
            wire.close(tls or sock)
            raise refused("origin_tls_failed", f"TLS with {name} failed: {error}") from None
        except BaseException:
            wire.close(tls or sock)
            raise
        return tls


async def _connect_one(info: AddrInfo, deadline: float) -> socket.socket:
    """Where there is no second address there is no race to run."""
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await wire.connect(sock, address, deadline=deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def same_host(sock: socket.socket) -> bool:
    """Whether a connected socket's peer is this machine: to an address of its own, the kernel
    connects from that address."""
    return bool(sock.getpeername()[0] == sock.getsockname()[0])


@lru_cache(_NAMES_MOST)
def _literal(host: str, port: int) -> AddrInfo | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 6:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
